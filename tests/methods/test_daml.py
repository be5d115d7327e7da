import copy
import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import normalize

from sslkit.backbones import ResNet9
from sslkit.data import DataModule
from sslkit.losses import (
    AngularLoss,
    ContrastiveLoss,
    LiftedStructureLoss,
    NPairLoss,
    TripletMarginLoss,
    contrastive,
    lifted_structure,
    n_pair,
    triplet_margin,
)
from sslkit.methods import DAML
from sslkit.methods.base import Batch
from sslkit.methods.daml import Generator
from sslkit.methods.negatives import SEEN_BY, draw
from sslkit.training import Optimizer
from sslkit.views import SupervisedView

LOSSES = {
    "contrastive": lambda: ContrastiveLoss(margin=1.2),
    "triplet": lambda: TripletMarginLoss(margin=0.4),
    "lifted": lambda: LiftedStructureLoss(margin=1.1),
    "n_pair": lambda: NPairLoss(),
}
each_loss = pytest.mark.parametrize("name", LOSSES)


def method(name="triplet", **options):
    optimizer = Optimizer(name="sgd", lr=0.05, lr_scaling="none", warmup_epochs=0)
    view = SupervisedView(32, normalize="half")
    options = {"embedding_dim": 8, "negatives": 5, **options}
    model = DAML(ResNet9(4), view, optimizer, loss=LOSSES[name](), **options)
    nn.init.normal_(model.generator[-1].weight, std=0.1)  # as if it had trained
    return model


def batch(classes=4, images=2):
    torch.manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(images)
    return Batch((torch.randn(len(labels), 3, 32, 32),), None, labels, labels)


# What a loss says of made negatives, an anchor at a time, in plain Python.


def by_hand(name, a, p, made, made_of_p):
    """Its loss, and how far each made negative is kept off."""

    def d(x, y):
        return math.sqrt(sum((i - j) ** 2 for i, j in zip(x, y, strict=True)))

    def dot(x, y):
        return sum(i * j for i, j in zip(x, y, strict=True))

    if name == "triplet":
        a, p, *made = (
            normalize(torch.tensor(x, dtype=torch.float64), dim=0).tolist() for x in (a, p, *made)
        )
        slack = [d(a, n) ** 2 - d(a, p) ** 2 - 0.4 for n in made]
        loss = sum(max(0, -s) for s in slack) / len(made)
    elif name == "contrastive":
        slack = [d(a, n) - 1.2 for n in made]
        loss = d(a, p) ** 2 / 2 + sum(max(0, -s) ** 2 / 2 for s in slack)
        loss /= 1 + len(made)
    elif name == "lifted":
        slack = [d(a, n) - d(a, p) - 1.1 for n in made]
        both = [(a, n) for n in made] + [(p, n) for n in made_of_p]
        total = d(a, p) + math.log(sum(math.exp(1.1 - d(x, n)) for x, n in both))
        loss = max(0, total) ** 2 / 2
    else:
        slack = [dot(a, p) - dot(a, n) for n in made]
        loss = math.log(1 + sum(math.exp(-s) for s in slack))
    return loss, [max(0, s) for s in slack]


@each_loss
def test_what_a_loss_says_of_made_negatives_by_hand(name):
    torch.manual_seed(0)
    z, made = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 4, 3, dtype=torch.float64)
    positive = torch.tensor([1, 0, 3, 4, 2, 5])
    loss = LOSSES[name]()
    found = SEEN_BY[type(loss)](loss, z, positive, made)
    for i, j in enumerate(positive.tolist()):
        rows = (z[i], z[j], made[i], made[j])
        expected = by_hand(name, *(row.tolist() for row in rows))
        assert found.loss[i].item() == pytest.approx(expected[0])
        assert found.kept[i].tolist() == pytest.approx(expected[1])


@each_loss
def test_against_real_negatives_it_is_the_loss_itself(name):
    """Two images a class, each anchor against all rows of the others, or their positives."""
    torch.manual_seed(0)
    labels = torch.arange(3).repeat_interleave(2)
    z = torch.randn(6, 4, dtype=torch.float64)
    positive = torch.tensor([1, 0, 3, 2, 5, 4])
    others = torch.stack([(labels != label).nonzero().squeeze(1) for label in labels])
    anchors = torch.arange(6)
    if name == "n_pair":
        others = torch.tensor([[3, 5], [3, 5], [1, 5], [1, 5], [1, 3], [1, 3]])
        anchors = anchors[::2]
    expected = {
        "contrastive": contrastive(z, labels, margin=1.2),
        "triplet": triplet_margin(z, labels, margin=0.4),
        "lifted": lifted_structure(z, labels, margin=1.1),
        "n_pair": n_pair(z, labels),
    }
    loss = LOSSES[name]()
    found = SEEN_BY[type(loss)](loss, z, positive, z[others])
    torch.testing.assert_close(found.loss[anchors].mean(), expected[name])


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)


@each_loss
@pytest.mark.parametrize("normal", [True, False])
def test_neither_moves_the_other(name, normal):
    model = method(name, real=0.7, synthetic=0.5, regularity=2, adversarial=3, normalize=normal)
    model.eval()
    given = batch()
    torch.manual_seed(1)
    terms = model.objective(given)
    torch.manual_seed(1)
    features = model.backbone.backbone(given.views[0])
    z, drawn = model.backbone.embed(features), draw(given.labels, 5)
    made = model.generator(features, drawn)
    seen_by = SEEN_BY[type(model.loss)]

    def seen(made):
        embedded = model.backbone.embed(made.flatten(0, 1)).unflatten(0, made.shape[:2])
        return seen_by(model.loss, z, drawn.positive, embedded)

    synthetic = seen(made.detach()).loss.mean()
    metric = 0.7 * model.loss(z, given.labels) + 0.5 * synthetic
    generator = (made - features[:, None]).square().mean()
    generator = generator + 2 * (made - features[drawn.negatives]).square().mean()
    generator = generator + 3 * seen(made).kept.mean()
    torch.testing.assert_close(terms["loss"], metric + generator)
    torch.testing.assert_close(terms["synthetic"], synthetic)
    for part, own in ((model.backbone, metric), (model.generator, generator)):
        found, expected = gradients(terms["loss"], part), gradients(own, part)
        torch.testing.assert_close(found, expected)
        assert any(gradient.abs().max() > 0 for gradient in found)


@each_loss
def test_alone_the_metric_learns_from_the_real_batch(name):
    model = method(name).eval()
    model.alone_until = 1
    given = batch()
    terms = model.objective(given)
    expected = model.loss(model.backbone(given.views[0]), given.labels)
    assert "synthetic" not in terms
    found = gradients(terms["loss"], model.backbone)
    torch.testing.assert_close(found, gradients(expected, model.backbone))
    assert all(g.abs().max() > 0 for g in gradients(terms["loss"], model.generator))


def test_what_is_watched_by_hand():
    model, given = method().eval(), batch(classes=3, images=3)
    torch.manual_seed(1)
    terms = model.objective(given)
    torch.manual_seed(1)
    with torch.no_grad():
        features = model.backbone.backbone(given.views[0])
        drawn = draw(given.labels, 5)
        made = model.generator(features, drawn)
        z = model.backbone.embed(features)
        harder, from_class, real = [], [], []
        for i in range(9):
            for k, row in enumerate(drawn.negatives[i].tolist()):
                embedded = model.backbone.embed(made[i, k][None])[0]
                harder.append(float((embedded - z[i]).norm() < (z[row] - z[i]).norm()))
                start = row // 3 * 3
                centre = (z[start] + z[start + 1] + z[start + 2]) / 3
                from_class.append(float((embedded - centre).norm()))
                real.append(float((z[row] - centre).norm()))
    for key, values in (("harder", harder), ("to_class", from_class), ("real_to_class", real)):
        assert terms[key].item() == pytest.approx(sum(values) / 45, abs=1e-5)


def test_what_is_drawn():
    torch.manual_seed(0)
    labels = torch.tensor([5, 5, 5, 2, 2, 9])
    seen = set()
    for _ in range(200):
        valid, positive, negatives = draw(labels, 3)
        assert valid.tolist() == [True] * 5 + [False]
        assert negatives.shape == (6, 3)
        for i in range(5):
            assert labels[positive[i]] == labels[i]
            assert positive[i] != i
            assert (labels[negatives[i]] != labels[i]).all()
        seen |= {(0, int(positive[0])), *((3, int(row)) for row in negatives[3])}
    assert seen == {(0, 1), (0, 2), (3, 0), (3, 1), (3, 2), (3, 5)}


@each_loss
def test_a_batch_without_a_positive_has_no_synthetic_negative(name):
    model = method(name)
    labels = torch.arange(4)
    terms = model.objective(Batch((torch.randn(4, 3, 32, 32),), None, labels, labels))
    terms["loss"].backward()
    assert terms.pop("loss") == terms.pop("real")  # 0 but of pairs, which are all negative
    assert all(value == 0 for value in terms.values())
    assert all((p.grad == 0).all() for p in model.generator.parameters())


def phases_of(model):
    """Fills, step by step, with whether the metric learns from synthetic negatives."""
    found, objective = [], model.objective

    def watched(batch):
        terms = objective(batch)
        found.append("synthetic" in terms)
        return terms

    model.objective = watched
    return found


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_both_train_alone_then_together():
    model = method(alone=0.3)
    phases = phases_of(model)
    before = copy.deepcopy(model.generator.state_dict())
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=DataModule("shapes", limit=64, batch_size=16))
    assert phases == [False] * 3 + [True] * 5  # 0.3 of 8 steps are 2.4
    assert any(not torch.equal(before[k], v) for k, v in model.generator.state_dict().items())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_resumed_run_repeats_the_losses(resumed_like_new):
    resumed_like_new(lambda: method(alone=0.5))


@each_loss
def test_under_autocast_a_small_difference_is_still_seen(name):
    """In bfloat16 what is added to the real negative's features would be lost."""
    model, given = method(name, normalize=False).eval(), batch()
    nn.init.normal_(model.generator[-1].weight, std=1e-5)
    model.backbone.backbone.stem[0].weight.data.mul_(30)
    torch.manual_seed(1)
    exact = model.objective(given)["regularity"]
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.objective(given)
    assert all(value.dtype == torch.float32 for value in terms.values())
    torch.testing.assert_close(terms["regularity"], exact, rtol=0.1, atol=0)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_run_that_becomes_longer_does_not_go_back_to_training_alone(tmp_path):
    def fit(epochs, path=None):
        model = method(alone=0.4)
        phases = phases_of(model)
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", **dict.fromkeys(off, False))
        data = DataModule("shapes", limit=64, batch_size=16)
        trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return phases

    assert fit(2) == [False] * 4 + [True] * 4
    assert fit(8, tmp_path / "last.ckpt") == [True] * 24


def test_what_is_made_begins_as_the_real_negative():
    torch.manual_seed(0)
    labels, features = torch.arange(4).repeat_interleave(2), torch.randn(8, 6)
    drawn = draw(labels, 3)
    made = Generator(6, 5)(features, drawn)
    assert torch.equal(made, features[drawn.negatives])


def test_the_generator_learns_what_its_terms_ask():
    """On features that stand still it comes between the anchor and the real negative."""
    model = method(adversarial=0)
    torch.manual_seed(0)
    labels, features = torch.arange(8).repeat_interleave(2), torch.randn(16, 32)
    optimizer = torch.optim.Adam(model.generator.parameters(), 0.003)
    sums = []
    for _ in range(400):
        drawn = draw(labels, 5)
        made = model.generator(features, drawn)
        terms = model._generators(features, model.backbone.embed(features), made, drawn)
        sums.append(terms["hardness"] + terms["regularity"])
        optimizer.zero_grad()
        sums[-1].backward()
        optimizer.step()
    middle = (features[:, None] + features[drawn.negatives]) / 2
    least = 2 * (middle - features[:, None]).square().mean()
    assert sums[-1] < 1.2 * least < 0.8 * sums[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"negatives": 0}, "negatives and generator_dim must be at least 1, not 0 and 32"),
        ({"generator_dim": 0}, "must be at least 1, not 5 and 0"),
        ({"alone": 1.0}, r"alone must be in \[0, 1\), not 1.0"),
        ({"real": -1.0}, "real must be a finite number, at least 0"),
        ({"adversarial": math.inf}, "adversarial must be a finite number"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(ValueError, match=said):
        method(**options)


def test_other_losses_are_refused():
    view = SupervisedView(32, normalize="half")
    said = "DAML is not for AngularLoss; choose from ContrastiveLoss, TripletMarginLoss, Lifted"
    with pytest.raises(ValueError, match=said):
        DAML(ResNet9(4), view, loss=AngularLoss())
