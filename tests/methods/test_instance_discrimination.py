import copy
import math

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import nn

from sslkit.backbones import Backbone, ResNet9
from sslkit.data import DataModule, load
from sslkit.methods import Batch, InstanceDiscrimination
from sslkit.training import Optimizer
from sslkit.views import EvaluationView, InstDiscView


def model(images=10, **options):
    torch.manual_seed(0)
    view = InstDiscView(16, normalize="half")
    optimizer = Optimizer(name="sgd", lr=0.1, warmup_epochs=0)
    made = InstanceDiscrimination(ResNet9(2), view, optimizer, projection_dim=5, **options)
    if images:
        made.prepare(load("shapes", "train", limit=images), 4)
    return made


def batch(index=(3, 0, 7, 5)):
    views = torch.randn(len(index), 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch((views,), None, None, torch.tensor(index))


def rows(method, given):
    return F.normalize(copy.deepcopy(method).projector(method.backbone(given.views[0]))).detach()


def test_softmax_over_the_bank_as_it_was():
    method, given = model(), batch()
    bank, z = method.bank.clone().double(), rows(copy.deepcopy(method), given).double()
    loss = method.objective(given)["loss"].item()
    total = 0.0
    for row, own in zip(z, given.index, strict=True):
        scores = [math.exp(float(row @ entry) / 0.07) for entry in bank]
        total -= math.log(scores[own] / sum(scores))
    assert loss == pytest.approx(total / 4, rel=1e-4)


@pytest.mark.parametrize("entries", [10, 3000])  # the softmax of many is streamed
def test_gradient_is_that_of_a_bank_that_stays(entries):
    method, given = model(images=0, proximal=0.5), batch()
    method.bank = F.normalize(torch.randn(entries, 5))
    twin = copy.deepcopy(method)
    loss = method.objective(given)["loss"]
    loss.backward()
    z = F.normalize(twin.projector(twin.backbone(given.views[0])))
    expected = F.cross_entropy(z @ twin.bank.T / 0.07, given.index)
    expected = expected + 0.5 * (z - twin.bank[given.index]).square().sum(1).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for a, b in zip(method.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("negatives", [None, 20])
def test_autocast_leaves_the_logits_in_full_precision(negatives):
    given, losses = batch(), []
    z = F.normalize(torch.randn(4, 5))
    for enabled in (False, True):
        method = model(negatives=negatives)
        method.projector.forward = lambda features: z
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(method.objective(given)["loss"].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_entries_move_towards_their_projections_after_the_loss():
    method, given = model(momentum=0.25), batch()
    bank, z = method.bank.clone(), rows(copy.deepcopy(method), given)
    method.objective(given)
    expected = bank.clone()
    for row, own in zip(z, given.index, strict=True):
        expected[own] = F.normalize(0.25 * bank[own] + 0.75 * row, dim=0)
    torch.testing.assert_close(method.bank, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(method.bank[1], bank[1])


def test_the_proximal_term_is_the_distance_to_the_bank():
    given = batch()
    plain, drawn = model(), model(proximal=3.0)
    z = rows(copy.deepcopy(drawn), given)
    distance = (z - drawn.bank[given.index]).square().sum(1).mean().item()
    found = drawn.objective(given)
    assert found["proximal"].item() == pytest.approx(distance, rel=1e-4)
    alone = plain.objective(given)["loss"].item()
    assert found["loss"].item() == pytest.approx(alone + 3 * distance, rel=1e-4)


def test_nce_estimates_the_constant_once_and_trains():
    method, given = model(negatives=2000), batch()
    bank, z = method.bank.double(), rows(copy.deepcopy(method), given).double()
    exact = (z @ bank.T / 0.07).exp().sum(1).mean().log().item()
    loss = method.objective(given)["loss"]
    assert method.log_z.item() == pytest.approx(exact, abs=0.15)
    kept = method.log_z.clone()
    loss.backward()
    assert method.projector.weight.grad.isfinite().all()
    method.objective(batch((1, 2, 4, 6)))
    assert torch.equal(method.log_z, kept)


def test_nce_is_the_loop_over_what_was_drawn():
    method, given = model(negatives=6), batch()
    bank, z = method.bank.double(), rows(copy.deepcopy(method), given).double()
    torch.manual_seed(9)
    loss = method.objective(given)["loss"].item()
    torch.manual_seed(9)
    noise = torch.randint(10, (4, 6))
    constant, total = method.log_z.double().exp(), 0.0
    for row, own, drawn in zip(z, given.index, noise, strict=True):
        p = (row @ bank[own] / 0.07).exp() / constant
        total -= torch.log(p / (p + 6 / 10))
        for other in drawn:
            p = (row @ bank[other] / 0.07).exp() / constant
            total -= torch.log(1 - p / (p + 6 / 10))
    assert loss == pytest.approx(total.item() / 4, rel=1e-3)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("negatives", [None, 20])
def test_the_bank_resumes_exactly(resumed_like_new, negatives):
    whole, _ = resumed_like_new(lambda: model(images=0, negatives=negatives))
    assert whole.bank.shape == (64, 5)


class Flat(Backbone):
    """Without BatchNorm: projections do not depend on the rest of a batch."""

    feature_dim = 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 16)

    def feature_map(self, images):
        return self.conv(images)

    def init_args(self):
        return {}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("options", [{}, {"random_start": True}, {"negatives": 5}])
def test_the_bank_begins_with_the_projections_of_the_untrained_network(tmp_path, options):
    class Begun(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.banks = [*getattr(self, "banks", []), module.bank.clone()]
            self.positions = [*getattr(self, "positions", []), trainer.datamodule.loader.position]

    data, begun = DataModule("shapes", limit=10, batch_size=4), Begun()
    data.setup("fit")
    images = data.dataset.images
    torch.manual_seed(0)
    view = EvaluationView(16, "half")
    method = InstanceDiscrimination(Flat(), view, projection_dim=5, **options)
    projections = F.normalize(method.projector(method.backbone(view(images)))).detach()
    pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[begun],
        default_root_dir=tmp_path,
    ).fit(method, datamodule=data)
    own = (begun.banks[0] * projections).sum(1) > 1 - 1e-5
    assert own.sum() == (0 if options else 8)  # the two of no whole batch are left out
    assert begun.positions == [1, 2]
    torch.testing.assert_close(begun.banks[0].norm(dim=1), torch.ones(10))


def test_a_bank_of_another_length_is_refused():
    method = model(images=10)
    bank = method.bank
    method.prepare(load("shapes", "train", limit=10), 4)
    assert method.bank is bank
    with pytest.raises(ValueError, match="bank has 10 entries, but the data has 12 images"):
        method.prepare(load("shapes", "train", limit=12), 4)
    checkpoint = {"sslkit": {"seed": 0}, "state_dict": {"bank": torch.zeros(12, 5)}}
    with pytest.raises(ValueError, match="bank has 12 entries, but the data has 10 images"):
        method.on_load_checkpoint(checkpoint)


def test_a_single_image_is_refused():
    with pytest.raises(ValueError, match="a single image has none to be told from"):
        model(images=1)


def test_without_a_bank_nothing_is_trained():
    with pytest.raises(ValueError, match="no memory bank: call prepare, or train with a data mod"):
        model(images=0).objective(batch())


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.0}, {"momentum": 1.0}, {"proximal": -1.0}, {"negatives": 0}],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="not "):
        model(images=0, **options)
