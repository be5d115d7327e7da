import copy

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from sslkit.backbones import Embedder, ResNet9
from sslkit.data import ArrayDataset, DataModule, load
from sslkit.losses import ContrastiveLoss, NPairLoss, NTXentLoss, TripletMarginLoss
from sslkit.methods import MetricLearning, MoCo, SimCLR
from sslkit.methods.base import Batch
from sslkit.methods.metric_learning import metric_losses
from sslkit.miners import semi_hard
from sslkit.training import Optimizer, load_backbone
from sslkit.views import MoCoV2Views, SimCLRViews, SupervisedView

VIEW = SupervisedView(32, normalize="half")


def method(loss=None, **options):
    loss = loss or TripletMarginLoss(miner=semi_hard)
    optimizer = Optimizer(name="sgd", lr=0.1, lr_scaling="none", warmup_epochs=0)
    return MetricLearning(ResNet9(4), VIEW, optimizer, loss=loss, embedding_dim=8, **options)


def fit(method, path=None, epochs=1):
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, datamodule=DataModule("shapes", limit=64, batch_size=16))
    if path:
        trainer.save_checkpoint(path)


@pytest.mark.parametrize("name", metric_losses())
def test_the_objective_is_the_loss_of_the_embeddings_of_every_view(name):
    import sslkit.losses

    torch.manual_seed(0)
    options = {"margin": 0.5} if name == "TripletMarginLoss" else {}
    loss = getattr(sslkit.losses, name)(**options)
    model = method(loss).eval()
    views, labels = torch.randn(2, 6, 3, 32, 32), torch.tensor([4, 4, 2, 2, 0, 0])
    found = model.objective(Batch(tuple(views), None, labels, labels))
    features = model.backbone.backbone(views.flatten(0, 1))
    z = features @ model.backbone.embedding.weight.T + model.backbone.embedding.bias
    expected = loss(z / z.norm(dim=1, keepdim=True), labels.repeat(2))
    torch.testing.assert_close(found["loss"], expected)
    assert found["loss"].requires_grad


def test_embeddings_may_keep_their_length():
    torch.manual_seed(0)
    model = method(NPairLoss(l2=0.02), normalize=False)
    lengths = model(torch.randn(4, 3, 32, 32)).norm(dim=1)
    assert (lengths - 1).abs().min() > 1e-3
    assert method()(torch.randn(4, 3, 32, 32)).norm(dim=1).tolist() == pytest.approx([1.0] * 4)


def test_an_embedding_of_norm_zero_stays_zero_and_gets_a_gradient():
    model = method(ContrastiveLoss())
    nn.init.zeros_(model.backbone.embedding.weight)
    nn.init.zeros_(model.backbone.embedding.bias)
    labels = torch.tensor([0, 0, 1, 1])
    loss = model.objective(Batch((torch.randn(4, 3, 32, 32),), None, labels, labels))["loss"]
    loss.backward()
    assert loss.isfinite()
    assert model.backbone.embedding.weight.grad.isfinite().all()


def test_a_batch_without_a_triplet_moves_nothing():
    model = method()
    labels = torch.arange(4)
    loss = model.objective(Batch((torch.randn(4, 3, 32, 32),), None, labels, labels))["loss"]
    loss.backward()
    assert loss == 0
    assert all((p.grad == 0).all() for p in model.parameters())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_stays_as_it_is_where_it_is_frozen(frozen):
    torch.manual_seed(0)
    model = method(TripletMarginLoss(), freeze_batch_norm=frozen)
    before = copy.deepcopy(model.state_dict())
    fit(model)
    after, norms = model.state_dict(), ("running_mean", "running_var", "num_batches_tracked")
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            names = [f"{name}.{key}" for key in (*norms, "weight", "bias")]
            same = [torch.equal(before[key], after[key]) for key in names]
            assert same == [frozen] * 5
    assert not torch.equal(before["backbone.embedding.weight"], after["backbone.embedding.weight"])
    model.eval().train()
    assert all(m.training != frozen for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert model.backbone.embedding.training


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_backbone_has_a_learning_rate_of_its_own():
    """One step of plain SGD: with a tenth of the rate the backbone moves a tenth as far."""

    def moved(rate):
        torch.manual_seed(0)
        model = method(TripletMarginLoss(), backbone_lr=rate)
        model.optimizer = Optimizer(
            name="sgd", lr=0.1, lr_scaling="none", momentum=0, weight_decay=0, warmup_epochs=0
        )
        before = copy.deepcopy(model.state_dict())
        trainer = pl.Trainer(
            max_steps=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        torch.manual_seed(1)
        trainer.fit(model, datamodule=DataModule("shapes", limit=64, batch_size=16))
        names = "backbone.backbone.stage3.0.0.weight", "backbone.embedding.weight"
        return [model.state_dict()[name] - before[name] for name in names]

    (trunk, head), (slow, same) = moved(1.0), moved(0.1)
    torch.testing.assert_close(slow, trunk / 10, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(same, head)
    assert moved(0.0)[0].abs().max() == 0


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_checkpoint_gives_the_embedder_back(tmp_path):
    model = method(TripletMarginLoss())
    fit(model, tmp_path / "x.ckpt")
    backbone, card = load_backbone(tmp_path / "x.ckpt")
    assert isinstance(backbone, Embedder)
    assert card["method"] == "MetricLearning"
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(backbone.eval()(images), model.backbone.eval()(images))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_resumed_run_repeats_the_losses(resumed_like_new):
    resumed_like_new(lambda: method(freeze_batch_norm=True, backbone_lr=0.5))


def test_it_starts_from_a_backbone_with_or_without_an_embedding():
    model, other = method(), ResNet9(4)
    head = model.backbone.embedding.weight.clone()
    model.start_from(other)
    for a, b in zip(model.backbone.backbone.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(model.backbone.embedding.weight, head)
    whole = Embedder(ResNet9(4), 8)
    model.start_from(whole)
    for a, b in zip(model.backbone.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)
    wider = Embedder(ResNet9(4), 9)
    model.start_from(wider)
    for a, b in zip(model.backbone.backbone.parameters(), wider.backbone.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(model.backbone.embedding.weight, whole.embedding.weight)
    for wrong in (ResNet9(8), Embedder(ResNet9(8), 8)):
        with pytest.raises(ValueError, match=r"the weights are of .* but the backbone is"):
            model.start_from(wrong)


def test_any_method_starts_from_what_is_under_an_embedding():
    simclr, other = SimCLR(ResNet9(4), SimCLRViews(32)), Embedder(ResNet9(4), 8)
    simclr.start_from(other)
    for a, b in zip(simclr.backbone.parameters(), other.backbone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_slow_copy_of_moco_starts_from_it_too():
    model, other = MoCo(ResNet9(4), MoCoV2Views(32), queue_size=32), ResNet9(4)
    model.start_from(other)
    slow = model.momentum_backbone.state_dict()
    assert all(torch.equal(slow[name], value) for name, value in other.state_dict().items())


def unlabelled():
    return ArrayDataset(torch.zeros(8, 3, 32, 32, dtype=torch.uint8))


def labelled(*labels):
    images = torch.zeros(len(labels), 3, 32, 32, dtype=torch.uint8)
    return ArrayDataset(images, torch.tensor(labels))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (unlabelled(), "needs labels, and the data has none"),
        (labelled(3, 3, 3), "2 classes or more.*3 images of 1 class"),
        (labelled(0, 1, 2), "one of 2 images or more.*3 images of 3 class"),
    ],
)
def test_data_that_has_no_pairs_is_refused_before_the_first_step(data, said):
    with pytest.raises(ValueError, match=said):
        method().prepare(data, 2)
    method().prepare(load("shapes", "train", limit=64), 4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: method(NTXentLoss()), "NTXentLoss does not take embeddings and labels; choose"),
        (lambda: method(ContrastiveLoss(miner=semi_hard)), "expected Pairs from a miner, not Trip"),
        (lambda: method(backbone_lr=-1.0), "backbone_lr must be a finite number, at least 0"),
        (
            lambda: MetricLearning(ResNet9(4), VIEW, loss=ContrastiveLoss(), embedding_dim=0),
            "width of the embeddings must be at least 2 at length 1, not 0",
        ),
    ],
)
def test_bad_arguments(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_loss_of_another_library_will_do():
    from pytorch_metric_learning.losses import MultiSimilarityLoss, ProxyAnchorLoss

    labels = torch.tensor([0, 0, 1, 1])
    proxies = ProxyAnchorLoss(2, 8)
    before = proxies.proxies.clone()
    assert torch.equal(method(proxies).loss.proxies, before)
    with pytest.raises(ValueError, match=r"ProxyAnchorLoss cannot take embeddings \(4, 8\)"):
        method(ProxyAnchorLoss(2, 7))
    model = method(MultiSimilarityLoss())
    assert model.objective(Batch((torch.randn(4, 3, 32, 32),), None, labels, labels))["loss"] > 0


def test_any_number_of_views():
    model = MetricLearning(ResNet9(4), SimCLRViews(32), loss=ContrastiveLoss())
    model.prepare(load("shapes", "train", limit=64), 4)
