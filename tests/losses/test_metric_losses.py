"""What every metric loss has in common."""

import functools
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sslkit import losses, miners

LABELS = torch.tensor([3, -1, 3, 7, -1, 3, 3, 7, 9])  # uneven classes, one of a single row
LOSSES = {  # a function, its module, and options for both
    losses.angular: (losses.AngularLoss, {"alpha": 40.0}),
    losses.contrastive: (losses.ContrastiveLoss, {"margin": 0.9}),
    losses.ddml: (losses.DDMLLoss, {"threshold": 2.5, "sharpness": 3.0}),
    losses.facility_location: (losses.FacilityLocationLoss, {"margin": 0.7, "refinements": 2}),
    losses.lifted_structure: (losses.LiftedStructureLoss, {"margin": 1.1}),
    losses.n_pair: (losses.NPairLoss, {"l2": 0.1}),
    losses.n_pair_angular: (
        losses.NPairAngularLoss,
        {"alpha": 40.0, "weight": 0.5, "l2": 0.1},
    ),
    losses.triplet_margin: (losses.TripletMarginLoss, {"margin": 0.4, "normalize": False}),
}
MINERS = {
    losses.contrastive: miners.all_pairs,
    losses.ddml: miners.all_pairs,
    losses.n_pair: miners.all_pairs,
    losses.triplet_margin: functools.partial(miners.semi_hard, margin=1.0),
}
every = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


def batch(seed=0, dim=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(LABELS), dim, generator=generator, dtype=dtype)


@every
def test_gradients(loss):
    z = batch(dim=3, dtype=torch.float64).requires_grad_()
    assert loss(z, LABELS).item() > 0
    assert torch.autograd.gradcheck(lambda z: loss(z, LABELS), (z,))


@every
def test_float32_for_low_precision_and_under_autocast(loss):
    z = batch()
    exact = loss(z, LABELS)
    assert exact.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(z, LABELS), exact)
    low = loss(z.bfloat16(), LABELS)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(exact.item(), rel=2e-2)
    assert loss(z.double(), LABELS).item() == pytest.approx(exact.item(), rel=1e-5)


@every
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_hidden(loss, value):
    for row in range(len(LABELS)):
        z = batch()
        z[row, 1] = value
        assert loss(z, LABELS).isnan()
    away = torch.tensor([[-abs(value), 0.0], [1.0, 0.0], [2.0, 0.0]])  # infinitely far
    assert loss(away, torch.tensor([0, 1, 1])).isnan()


@every
@pytest.mark.parametrize("labels", [[], [4], [4, 5]], ids=["no row", "one row", "no positive"])
def test_without_a_positive_pair(loss, labels):
    z = (10 * torch.eye(3)[: len(labels)]).requires_grad_()
    value = loss(z, torch.tensor(labels, dtype=torch.long))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert not z.grad.any()


@every
def test_without_a_negative_pair(loss):
    z = batch().requires_grad_()
    value = loss(z, torch.zeros_like(LABELS))
    value.backward()
    assert z.grad.isfinite().all()
    if loss not in (losses.contrastive, losses.ddml):
        assert value == 0
        assert not z.grad.any()
    assert loss(z * math.nan, torch.zeros_like(LABELS)).isnan()


@every
@pytest.mark.parametrize("z", [torch.zeros(9, 4), torch.ones(9, 4), 1e4 * batch()])
def test_finite_with_a_finite_gradient(loss, z):
    z = z.clone().requires_grad_()
    value = loss(z, LABELS)
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


@every
def test_a_zero_row_and_equal_rows_have_a_finite_gradient(loss):
    z = batch()
    z[0] = 0
    z[4] = z[5]
    z.requires_grad_()
    loss(z, LABELS).backward()
    assert z.grad.isfinite().all()


@every
def test_non_contiguous_input(loss):
    z = batch(dim=10)
    strided = z.T.contiguous().T[:, ::2]
    torch.testing.assert_close(loss(strided, LABELS), loss(strided.contiguous(), LABELS))
    labels = LABELS[:, None].expand(-1, 2)[:, 0]
    assert torch.equal(loss(z, labels.to(torch.int16)), loss(z, LABELS))


@every
@settings(max_examples=10, deadline=None)
@given(st.permutations(range(len(LABELS))))
def test_blind_to_the_order_of_rows(loss, order):
    if loss in (losses.n_pair, losses.n_pair_angular):  # which takes the first rows of a class
        rows = {label: iter((label == LABELS).nonzero()) for label in LABELS.tolist()}
        order = [next(rows[label]).item() for label in LABELS[order].tolist()]
    z = batch(dtype=torch.float64)
    torch.testing.assert_close(loss(z[order], LABELS[order]), loss(z, LABELS))


@every
def test_compiles_in_one_graph(loss):
    if loss is losses.facility_location:  # whose search is as long as there are labels
        return
    torch.compiler.reset()
    z = batch()
    whole = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(z, LABELS), loss(z, LABELS))


@pytest.mark.slow
@every
def test_compiled_gradients(loss):
    if loss is losses.facility_location:
        return
    torch.compiler.reset()
    labels = torch.arange(41) % 7
    z = torch.randn(41, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    whole = torch.compile(loss, fullgraph=True)
    compiled, eager = (torch.autograd.grad(f(z, labels), z)[0] for f in (whole, loss))
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


@every
@pytest.mark.parametrize(
    ("z", "labels", "message"),
    [
        (torch.ones(3), torch.zeros(3).long(), r"embeddings must be \(N, D\), not \(3,\)"),
        (torch.ones(3, 2).int(), torch.zeros(3).long(), "floating-point dtype, not torch.int32"),
        (torch.ones(3, 2), torch.zeros(2).long(), r"3 integers, one a row, not .* \(2,\)"),
        (torch.ones(3, 2), torch.zeros(3), "3 integers, one a row, not float32"),
    ],
)
def test_bad_input(loss, z, labels, message):
    with pytest.raises(ValueError, match=message):
        loss(z, labels)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (losses.angular, {"alpha": 0}, "alpha must be above 0 and at most 60 degrees, not 0"),
        (losses.angular, {"alpha": 60.5}, "at most 60 degrees, not 60.5"),
        (losses.angular, {"alpha": math.nan}, "degrees, not nan"),
        (losses.contrastive, {"margin": 0.0}, "margin must be a finite number above 0, not 0.0"),
        (losses.ddml, {"threshold": 1.0}, "threshold must be a finite number above 1, not 1.0"),
        (losses.ddml, {"sharpness": math.inf}, "sharpness .* above 0, not inf"),
        (losses.facility_location, {"margin": -1}, "margin .* above 0, not -1"),
        (losses.facility_location, {"refinements": -1}, "refinements .* at least 0, not -1"),
        (losses.lifted_structure, {"margin": math.nan}, "margin .* above 0, not nan"),
        (losses.n_pair, {"l2": -0.5}, "l2 must be a finite number, at least 0, not -0.5"),
        (losses.n_pair_angular, {"weight": 0}, "weight .* above 0, not 0"),
        (losses.n_pair_angular, {"l2": math.nan}, "l2 .* at least 0, not nan"),
        (losses.n_pair_angular, {"alpha": 90}, "at most 60 degrees, not 90"),
        (losses.triplet_margin, {"margin": -0.1}, "margin .* above 0, not -0.1"),
    ],
)
def test_bad_options(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(batch(), LABELS, **options)
    with pytest.raises(ValueError, match=message):
        LOSSES[loss][0](**options)


@every
def test_module(loss):
    kind, options = LOSSES[loss]
    module = kind(**options)
    assert isinstance(module, nn.Module)
    assert torch.equal(module(batch(), LABELS), loss(batch(), LABELS, **options))
    for name, value in {**options, "gather": True}.items():
        assert f"{name}={value}" in repr(module)


@every
def test_module_takes_the_rows_of_all_processes(loss, monkeypatch):
    kind, options = LOSSES[loss]
    module = sys.modules[kind.__module__]
    monkeypatch.setattr(module, "all_gather", lambda tensor: torch.cat([tensor, tensor.flip(0)]))
    z, labels = torch.cat([batch(), batch().flip(0)]), torch.cat([LABELS, LABELS.flip(0)])
    assert torch.equal(kind(**options)(batch(), LABELS), loss(z, labels, **options))
    alone = kind(gather=False, **options)(batch(), LABELS)
    assert torch.equal(alone, loss(batch(), LABELS, **options))


@pytest.mark.parametrize("loss", MINERS, ids=lambda loss: loss.__name__)
def test_module_with_a_miner(loss):
    (kind, options), miner = LOSSES[loss], MINERS[loss]
    module = kind(miner=miner, **options)
    z = batch(dtype=torch.float64)
    if loss in (losses.contrastive, losses.ddml):
        torch.testing.assert_close(module(z, LABELS), loss(z, LABELS, **options))
    assert module(z, LABELS) > 0
    assert getattr(miner, "__name__", "functools.partial") in repr(module)
    z[8] = math.nan
    assert module(z, LABELS).isnan()
    assert module(z[:1], LABELS[:1]) == 0


@pytest.mark.parametrize(
    ("loss", "name", "tuples"),
    [
        (losses.contrastive, "pairs", miners.all_pairs(batch(), LABELS)),
        (losses.ddml, "pairs", miners.all_pairs(batch(), LABELS)),
        (losses.triplet_margin, "triplets", miners.hard(batch(), LABELS)),
    ],
)
def test_labels_or_tuples(loss, name, tuples):
    message = f"exactly one of labels and {name} must be given, not "
    with pytest.raises(ValueError, match=message + "0"):
        loss(batch())
    with pytest.raises(ValueError, match=message + "2"):
        loss(batch(), LABELS, **{name: tuples})
    empty = type(tuples)(*(index[:0] for index in tuples))
    z = batch().requires_grad_()
    loss(z, **{name: empty}).backward()
    assert not z.grad.any()


@pytest.mark.parametrize("offset", [100.0, 1000.0])
def test_distances_far_from_0_keep_their_digits(offset):
    z = offset + 0.05 * torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) // 2
    for loss in (losses.contrastive, losses.ddml, losses.lifted_structure):
        expected = loss(z.double(), labels).item()
        assert loss(z, labels).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("value", [[0, 1, 2], None, "abc", torch.arange(3).numpy()])
def test_no_tensor_is_one_clear_line(value):
    for call in (
        lambda: losses.sup_con(torch.eye(3), value, temperature=1),
        lambda: losses.angular(torch.eye(3), value),
        lambda: miners.hard(torch.eye(3), value),
        lambda: losses.nt_xent(value, torch.eye(3), temperature=1),
        lambda: losses.soft_cross_entropy(torch.eye(3), value),
    ):
        with pytest.raises(ValueError, match="must be a tensor, not "):
            call()


@pytest.mark.parametrize("value", ["0.1", None, [0.5], torch.ones(2)])
def test_no_number_is_one_clear_line(value):
    for call in (
        lambda: losses.NTXentLoss(value),
        lambda: losses.ContrastiveLoss(margin=value),
        lambda: losses.BarlowTwinsLoss(redundancy=value),
    ):
        with pytest.raises(ValueError, match="must be a finite number"):
            call()


def test_a_batch_without_rows():
    z, labels = torch.ones(0, 3), torch.arange(0)
    for miner in (miners.hard, miners.semi_hard, miners.easy_positive, miners.distance_weighted):
        assert not len(miner(z, labels).anchor)
        assert losses.TripletMarginLoss(miner=miner)(z, labels) == 0


def test_a_miner_that_returns_nothing():
    loss = losses.TripletMarginLoss(miner=lambda embeddings, labels: None)
    with pytest.raises(ValueError, match="expected Triplets from a miner, not NoneType"):
        loss(torch.eye(3), LABELS[:3])


PAIRS = miners.Pairs(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([True, False]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda z: losses.TripletMarginLoss(miner=miners.all_pairs)(z, torch.arange(3)),
            "Triplets from a miner, not Pairs",
        ),
        (
            lambda z: losses.ContrastiveLoss(miner=miners.hard)(z, torch.arange(3)),
            "Pairs from a miner, not Triplets",
        ),
        (
            lambda z: losses.NPairLoss(miner=miners.hard)(z, torch.arange(3)),
            "Pairs from a miner, not Triplets",
        ),
        (
            lambda z: losses.n_pair(z, torch.arange(3), pairs=PAIRS._replace(same=torch.ones(2))),
            r"same must be torch.bool of shape \(2,\), not torch.float32",
        ),
        (
            lambda z: losses.contrastive(z, pairs=PAIRS._replace(second=torch.tensor([1]))),
            r"second must be torch.int64 of shape \(2,\), not torch.int64 of shape \(1,\)",
        ),
    ],
)
def test_tuples_of_another_kind(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.eye(3))
