"""The losses that compare with all others: against loops over the papers' formulas, and peers."""

import math
import subprocess
import sys

import lightly.loss
import pytest
import pytorch_metric_learning.losses as metric_learning
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sslkit import losses
from sslkit.losses import (
    decoupled_nt_xent,
    hard_nt_xent,
    info_nce,
    nt_xent,
    nt_xent_multi_view,
    streaming,
    sup_con,
)

QUEUE = torch.randn(23, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def labels_of(z: Tensor) -> Tensor:
    """Classes of unequal sizes, mixed; one row alone if there are enough."""
    labels = torch.arange(len(z)).square() % max(len(z) // 2, 1) * 7 - 3
    labels[4:5] = 1000
    return labels


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def logits(views: list[Tensor], t: float) -> list[list[tuple[int, int, float]]]:
    """For each view of each image: (image, view, cosine over t) of all views of all images."""
    rows = [(i, v, z) for v, view in enumerate(views) for i, z in enumerate(view)]
    return [[(j, w, cosine(a, b) / t) for j, w, b in rows] for _, _, a in rows]


def loop_multi_view(views, t):
    n, v = len(views[0]), len(views)
    terms = []
    for a, row in enumerate(logits(views, t)):
        image, view = a % n, a // n
        negative = sum(math.exp(s) for j, _, s in row if j != image)
        for j, w, s in row:
            if j == image and w != view:
                terms.append(-math.log(math.exp(s) / (math.exp(s) + negative)))
    assert len(terms) == n * v * (v - 1)
    return sum(terms) / len(terms)


def loop_decoupled(z0, z1, t, sigma=None):
    n = len(z0)
    closeness = [
        math.exp(cosine(a, b) / sigma) if sigma else 1.0 for a, b in zip(z0, z1, strict=True)
    ]
    total = 0.0
    for a, row in enumerate(logits([z0, z1], t)):
        image, view = a % n, a // n
        w = 2 - closeness[image] / (sum(closeness) / n)
        positive = next(s for j, v, s in row if j == image and v != view)
        total += math.log(sum(math.exp(s) for j, _, s in row if j != image)) - w * positive
    return total / (2 * n)


def loop_hard(z0, z1, t, beta, tau):
    n, total = len(z0), 0.0
    for a, row in enumerate(logits([z0, z1], t)):
        image, view = a % n, a // n
        p = math.exp(next(s for j, v, s in row if j == image and v != view))
        negative = [math.exp(s) for j, _, s in row if j != image]
        importance = [x**beta for x in negative]
        m = len(negative)
        mean = sum(importance) / m
        reweighted = sum(i * x for i, x in zip(importance, negative, strict=True)) / mean
        g = max((-tau * m * p + reweighted) / (1 - tau), m * math.exp(-1 / t))
        total -= math.log(p / (p + g))
    return total / (2 * n)


def loop_info_nce(query, positive, negatives, t):
    total = 0.0
    for i, q in enumerate(query):
        own = math.exp(cosine(q, positive[i]) / t)
        others = negatives if negatives is not None else positive
        others = [k for j, k in enumerate(others) if negatives is not None or j != i]
        total -= math.log(own / (own + sum(math.exp(cosine(q, k) / t) for k in others)))
    return total / len(query)


def loop_sup_con(z, labels, t):
    terms = []
    for i, a in enumerate(z):
        s = {j: cosine(a, b) / t for j, b in enumerate(z) if j != i}
        positives = [j for j in s if labels[j] == labels[i]]
        if positives:
            denominator = sum(math.exp(x) for x in s.values())
            logs = [math.log(math.exp(s[j]) / denominator) for j in positives]
            terms.append(-sum(logs) / len(logs))
    return sum(terms) / len(terms)


def queue(z: Tensor) -> Tensor:
    return QUEUE[:, : z.shape[1]].to(z.dtype)


# name: (the loss, its loop), both of three (N, D) and a temperature
CASES = {
    "nt_xent": (
        lambda a, b, c, t: nt_xent(a, b, temperature=t),
        lambda a, b, c, t: loop_multi_view([a, b], t),
    ),
    "nt_xent_multi_view": (
        lambda a, b, c, t: nt_xent_multi_view((a, b, c), temperature=t),
        lambda a, b, c, t: loop_multi_view([a, b, c], t),
    ),
    "info_nce": (
        lambda a, b, c, t: info_nce(a, b, temperature=t),
        lambda a, b, c, t: loop_info_nce(a, b, None, t),
    ),
    "info_nce, queue": (
        lambda a, b, c, t: info_nce(a, b, queue(a), temperature=t),
        lambda a, b, c, t: loop_info_nce(a, b, queue(a), t),
    ),
    "sup_con": (
        lambda a, b, c, t: sup_con(a, labels_of(a), temperature=t),
        lambda a, b, c, t: loop_sup_con(a, labels_of(a), t),
    ),
    "decoupled": (
        lambda a, b, c, t: decoupled_nt_xent(a, b, temperature=t),
        lambda a, b, c, t: loop_decoupled(a, b, t),
    ),
    "decoupled, weighted": (
        lambda a, b, c, t: decoupled_nt_xent(a, b, temperature=t, sigma=0.5),
        lambda a, b, c, t: loop_decoupled(a, b, t, 0.5),
    ),
    "hard": (
        lambda a, b, c, t: hard_nt_xent(a, b, temperature=t, beta=1.5, tau_plus=0.2),
        lambda a, b, c, t: loop_hard(a, b, t, 1.5, 0.2),
    ),
    "debiased": (
        lambda a, b, c, t: hard_nt_xent(a, b, temperature=t, beta=0.0, tau_plus=0.1),
        lambda a, b, c, t: loop_hard(a, b, t, 0, 0.1),
    ),
}
every_case = pytest.mark.parametrize(("loss", "loop"), CASES.values(), ids=CASES)


@pytest.fixture
def by_tiles(monkeypatch):
    """Small batches by tiles of 5, of which some are kept, not by the whole matrix."""
    tiles = sys.modules["sslkit.losses.streaming.tiles"]
    monkeypatch.setattr(streaming, "SMALL", 0)
    monkeypatch.setattr(tiles, "KEPT", 60)
    monkeypatch.setattr(tiles, "_side", lambda z: 5)
    monkeypatch.setattr(sys.modules["sslkit.losses.nt_xent"], "WHOLE", 0)


@pytest.fixture(params=["whole", "tiles"])
def path(request):
    """Small batches in both ways."""
    if request.param == "tiles":
        request.getfixturevalue("by_tiles")


def views(n: int, d: int = 6, dtype=torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(3, n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@every_case
@pytest.mark.parametrize("n", [2, 3, 17])
@pytest.mark.parametrize("t", [0.03, 0.5])
def test_equals_the_papers_formula(path, loss, loop, n, t):
    z = views(n)
    expected = loop(*z, t)
    assert loss(*z, t).item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    if t > 0.1:  # below, float32 inputs are themselves too coarse
        assert loss(*z.float(), t).item() == pytest.approx(expected, rel=1e-5, abs=2e-7)
        low = loss(*z.bfloat16(), t)
        assert low.dtype == torch.float32
        assert low.item() == pytest.approx(expected, rel=1e-2, abs=1e-3)


@every_case
def test_gradients(path, loss, loop):
    z = views(6, 3).requires_grad_()
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    if loss is CASES["decoupled, weighted"][0]:  # its weight is a constant
        peer = lightly.loss.DCLWLoss(0.4, 0.5)(z[0], z[1])
        ours = torch.autograd.grad(loss(*z, t), z)
        torch.testing.assert_close(ours, torch.autograd.grad(peer, z))
        return

    def function(z: Tensor, t: Tensor) -> Tensor:
        return loss(*z, t)

    assert torch.autograd.gradcheck(function, (z, t))
    assert torch.autograd.gradgradcheck(function, (z, t))


@every_case
def test_gradient_in_float32(loss, loop):
    """At sizes where tiles are used, against float64 through the whole matrix."""
    z = views(300, 6)
    z[1] = z[0] + 0.05 * z[1]
    # At a low temperature the difference in the debiased loss loses digits of its own.
    t = 0.5 if loss is CASES["hard"][0] else 0.1
    grads = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        leaf = z.bfloat16().to(dtype).requires_grad_()
        loss(*leaf, t).backward()
        grads.append(leaf.grad.double())
    assert (grads[1] - grads[0]).norm() < 1e-5 * grads[0].norm()
    assert (grads[2] - grads[0]).norm() < 1e-2 * grads[0].norm()


@every_case
def test_temperatures_whose_exponentials_overflow(path, loss, loop):
    z = views(6).requires_grad_()
    value = loss(*z.float(), 0.002)
    assert value.item() == pytest.approx(loss(*z, 0.002).item(), rel=1e-3)
    value.backward()
    assert z.grad.isfinite().all()


@every_case
def test_temperature_as_a_tensor(path, loss, loop):
    z, t = views(8), torch.full((1,), 0.3, requires_grad=True)
    value = loss(*z, t)
    value.backward()
    assert value.item() == pytest.approx(loss(*z, 0.3).item(), rel=1e-6)
    assert t.grad.shape == (1,)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.elements = max(self.elements, storage)
        return out


@every_case
def test_never_holds_the_matrix(monkeypatch, loss, loop):
    """Neither among autograd's tensors nor inside of the operators, which hide theirs."""
    made = []
    modules = [sys.modules[f"sslkit.losses.{m}"] for m in ("streaming.tiles", "streaming.strips")]
    for module in (*modules, sys.modules["sslkit.losses.nt_xent"]):
        for name in ("space_for", "_strip"):
            original = getattr(module, name, None)
            if original:

                def spy(*args, original=original, **kwargs):
                    made.append(original(*args, **kwargs))
                    return made[-1]

                monkeypatch.setattr(module, name, spy)
    z = views(3000, 4).float().requires_grad_()
    with Largest() as largest:
        loss(*z, 0.5).backward()
    assert made
    assert max(largest.elements, *(tensor.numel() for tensor in made)) <= 2**21  # of 9 million


@every_case
def test_autocast_changes_nothing(path, loss, loop):
    z = views(9, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(*z, 0.2)
    assert torch.equal(inside, loss(*z, 0.2))


@every_case
def test_backward_under_autocast(loss, loop):
    z = views(450, dtype=torch.float32).requires_grad_()
    expected = torch.autograd.grad(loss(*z, 0.2), z)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(torch.autograd.grad(loss(*z, 0.2), z), expected)
        twice = torch.autograd.grad(loss(*z, 0.2), z, create_graph=True)
        torch.testing.assert_close(twice, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, **k: nt_xent(a, a, **k),
        lambda a, **k: nt_xent(a, 2 * a + a.flip(0), **k),
        lambda a, **k: info_nce(a, a.flip(0), **k),
        lambda a, **k: sup_con(a, labels_of(a), anchors=slice(0, 150), **k),
    ],
)
def test_inputs_made_from_one_another_count_once(loss):
    a = views(300)[0].requires_grad_()
    (once,) = torch.autograd.grad(loss(a, temperature=0.3), a)
    (again,) = torch.autograd.grad(loss(a, temperature=0.3), a, create_graph=True)
    torch.testing.assert_close(again, once)


@every_case
def test_second_derivative_at_a_zero_row(loss, loop):
    z = views(5)
    z[:, 0] = 0
    z.requires_grad_()
    (grad,) = torch.autograd.grad(loss(*z, 0.3), z, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), z)
    assert second.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_sup_con_takes_any_integer_labels(dtype):
    a = views(300)[0]
    labels = torch.arange(300) % 3
    expected = sup_con(a, labels, temperature=0.3)
    assert torch.equal(sup_con(a, labels.to(dtype), temperature=0.3), expected)


@every_case
def test_compiles_whole(by_tiles, loss, loop):
    torch.compiler.reset()
    z, t = views(9).requires_grad_(), torch.tensor(0.3, requires_grad=True)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value = compiled(*z, t)
    expected = loss(*z, t)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, (z, t)), torch.autograd.grad(expected, (z, t))
    )


@every_case
def test_non_contiguous(path, loss, loop):
    z = views(9)
    strided = torch.stack([z, z], dim=3)[..., 0]
    assert not strided[0].is_contiguous()
    grads = []
    for leaf in (z.clone().requires_grad_(), strided.requires_grad_()):
        value = loss(*leaf, 0.3)
        grads.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(*grads)


@every_case
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("n", [4, 200])
def test_values_that_are_no_embeddings_make_it_nan(loss, loop, bad, n):
    z = views(n, dtype=torch.float32)
    z[0, 1, 2] = bad
    assert loss(*z, 0.5).isnan()


@every_case
@pytest.mark.parametrize("n", [4, 200])
def test_a_zero_row_and_equal_rows_have_finite_gradients(loss, loop, n):
    z = views(n, dtype=torch.float32)
    z[:, 0] = 0
    z[:, 1:3] = z[0, 1]
    z.requires_grad_()
    loss(*z, 0.1).backward()
    assert z.grad.isfinite().all()
    assert z.grad[0, 0].abs().max() < 100
    torch.manual_seed(0)
    same = torch.ones(3, n, 6, requires_grad=True)
    loss(*same, 0.1).backward()
    assert same.grad.isfinite().all()


@every_case
@given(st.integers(0, 10**6), st.integers(2, 12), st.floats(0.05, 2))
@settings(max_examples=8, deadline=None)
def test_scale_and_common_rotation_do_not_matter(loss, loop, seed, n, t):
    z = views(n, 6, seed=seed)
    value = loss(*z, t).item()
    scale = torch.rand(3, n, 1, generator=torch.Generator().manual_seed(seed)) * 100 + 0.01
    if CASES["info_nce, queue"][0] is not loss:  # whose queue stays where it is
        z = z @ torch.linalg.qr(views(6, seed=seed + 1)[0]).Q
    assert loss(*(z * scale), t).item() == pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "name", ["nt_xent", "nt_xent_multi_view", "decoupled", "decoupled, weighted", "hard"]
)
@given(st.integers(0, 10**6), st.integers(2, 12))
@settings(max_examples=10, deadline=None)
def test_neither_the_order_of_images_nor_of_views_matters(name, seed, n):
    loss = CASES[name][0]
    z = views(n, seed=seed)
    value = loss(*z, 0.3).item()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert loss(*z[:, order], 0.3).item() == pytest.approx(value, rel=1e-12)
    swapped = z.flip(0) if name == "nt_xent_multi_view" else z[[1, 0, 2]]
    assert loss(*swapped, 0.3).item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("loss", "same", "orthogonal"),
    [
        # 10 images of one direction, and of a direction each, both views alike; logits 2 and 0
        (nt_xent, math.log(19), math.log(1 + 18 * math.exp(-2))),
        (info_nce, math.log(10), math.log(1 + 9 * math.exp(-2))),
        (decoupled_nt_xent, math.log(18), math.log(18) - 2),
    ],
)
def test_limits(loss, same, orthogonal):
    equal, eye = torch.ones(10, 10), torch.eye(10)
    assert loss(equal, equal, temperature=0.5).item() == pytest.approx(same, rel=1e-6)
    assert loss(eye, eye, temperature=0.5).item() == pytest.approx(orthogonal, rel=1e-6)


def test_a_converged_loss_keeps_its_digits():
    z = torch.eye(64)
    expected = math.log1p(126 * math.exp(-20))
    assert nt_xent(z, z, temperature=0.05).item() == pytest.approx(expected, rel=1e-5)
    assert info_nce(z, z, temperature=0.05).item() == pytest.approx(
        math.log1p(63 * math.exp(-20)), rel=1e-5
    )


def test_special_cases_are_nt_xent():
    a, b, _ = views(9)
    expected = nt_xent(a, b, temperature=0.2)
    pairs = torch.arange(9).repeat(2)
    for value in (
        nt_xent_multi_view(torch.stack([a, b]), temperature=0.2),
        hard_nt_xent(a, b, temperature=0.2, beta=0, tau_plus=0),
        sup_con(torch.cat([a, b]), pairs, temperature=0.2),
    ):
        torch.testing.assert_close(value, expected)


def test_equals_lightly():
    a, b, _ = views(11, dtype=torch.float32)
    for ours, theirs in (
        (nt_xent(a, b, temperature=0.2), lightly.loss.NTXentLoss(0.2)),
        (decoupled_nt_xent(a, b, temperature=0.2), lightly.loss.DCLLoss(0.2)),
        (decoupled_nt_xent(a, b, temperature=0.2, sigma=0.5), lightly.loss.DCLWLoss(0.2, 0.5)),
    ):
        torch.testing.assert_close(ours, theirs(a, b))


def test_equals_pytorch_metric_learning():
    a, b, c = views(7, dtype=torch.float32)
    images = torch.arange(7)
    peer = metric_learning.NTXentLoss(temperature=0.2)
    torch.testing.assert_close(
        nt_xent(a, b, temperature=0.2), peer(torch.cat([a, b]), images.repeat(2))
    )
    torch.testing.assert_close(
        nt_xent_multi_view([a, b, c], temperature=0.2),
        peer(torch.cat([a, b, c]), images.repeat(3)),
    )
    # Theirs divides by all anchors unless it is told to leave out those without a positive.
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    torch.testing.assert_close(
        sup_con(a, labels, temperature=0.2), metric_learning.SupConLoss(0.2)(a, labels)
    )


def test_equals_cross_entropy_over_a_queue():
    query, positive, _ = views(7)
    keys = queue(query)
    q, p, k = (torch.nn.functional.normalize(z, dim=1) for z in (query, positive, keys))
    scores = torch.cat([(q * p).sum(1, keepdim=True), q @ k.T], dim=1) / 0.07
    expected = torch.nn.functional.cross_entropy(scores, torch.zeros(7, dtype=torch.long))
    torch.testing.assert_close(info_nce(query, positive, keys, temperature=0.07), expected)


def test_a_queue_gets_its_gradient():
    query, positive, _ = views(5)
    keys = queue(query).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda keys: info_nce(query, positive, keys, temperature=0.3), (keys,)
    )


SHARES = {
    "nt_xent": lambda z, **k: nt_xent(z[0], z[1], **k),
    "nt_xent_multi_view": lambda z, **k: nt_xent_multi_view(z, **k),
    "info_nce": lambda z, **k: info_nce(z[0], z[1], **k),
    "info_nce, queue": lambda z, **k: info_nce(z[0], z[1], queue(z), **k),
    "sup_con": lambda z, **k: sup_con(z[0], labels_of(z[0]), **k),
    "decoupled, weighted": lambda z, **k: decoupled_nt_xent(z[0], z[1], sigma=0.5, **k),
    "hard": lambda z, **k: hard_nt_xent(z[0], z[1], **k),
}


@pytest.mark.parametrize("loss", SHARES.values(), ids=SHARES)
def test_shares_of_anchors_add_up(path, loss):
    z = views(10).requires_grad_()
    whole = loss(z, temperature=0.3)
    parts = [slice(0, 3), slice(3, 4), slice(4, 10)]
    total = sum(loss(z, temperature=0.3, anchors=part) for part in parts)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(torch.autograd.grad(total, z), torch.autograd.grad(whole, z))
    torch.testing.assert_close(loss(z, temperature=0.3, anchors=slice(None)), whole)


def test_sup_con_without_positives_is_a_differentiable_0():
    z = views(4)[0].requires_grad_()
    value = sup_con(z, torch.arange(4), temperature=0.5)
    value.backward()
    assert value == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


ONES = torch.ones(3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nt_xent(ONES[:1], ONES[:1], temperature=1), "z0 must have at least 2 rows.* 1"),
        (lambda: nt_xent(ONES[:0], ONES[:0], temperature=1), "z0 must have at least 2 rows.* 0"),
        (
            lambda: nt_xent(ONES, ONES[:2], temperature=1),
            r"z1 must have the shape of z0, \(3, 4\), not \(2, 4\)",
        ),
        (lambda: nt_xent(ONES[0], ONES[0], temperature=1), r"z0 must be \(N, D\), not \(4,\)"),
        (
            lambda: nt_xent(ONES.long(), ONES, temperature=1),
            "z0 must be of a floating-point dtype, not torch.int64",
        ),
        (lambda: nt_xent(ONES, ONES, temperature=0.0), "temperature must be .* above 0, not 0.0"),
        (lambda: nt_xent(ONES, ONES, temperature=-1), "temperature must be .* above 0, not -1"),
        (lambda: nt_xent(ONES, ONES, temperature=math.nan), "above 0, not nan"),
        (lambda: nt_xent(ONES, ONES, temperature=torch.tensor(-0.5)), "above 0, not -0.5"),
        (lambda: sup_con(ONES, torch.arange(3), temperature=ONES), r"one number, not \(3, 4\)"),
        (lambda: nt_xent(ONES[:, :0], ONES[:, :0], temperature=1), r"a dimension, not \(3, 0\)"),
        (lambda: losses.NTXentLoss()(ONES, ONES[:2]), "z1 must have the shape of z0"),
        (lambda: nt_xent_multi_view([ONES], temperature=1), "views must be at least 2, not 1"),
        (lambda: info_nce(ONES[:1], ONES[:1], temperature=1), "query must have at least 2 rows"),
        (lambda: info_nce(ONES, ONES[:2], temperature=1), "positive must have the shape of query"),
        (
            lambda: info_nce(ONES, ONES, ONES[:0], temperature=1),
            r"negatives must be \(M, 4\), M at least 1, not \(0, 4\)",
        ),
        (
            lambda: info_nce(ONES, ONES, torch.ones(5, 3), temperature=1),
            r"negatives must be \(M, 4\), M at least 1, not \(5, 3\)",
        ),
        (
            lambda: sup_con(ONES, torch.zeros(2).long(), temperature=1),
            r"labels must be 3 integers, one a row, not int64 of shape \(2,\)",
        ),
        (lambda: sup_con(ONES, torch.zeros(3), temperature=1), "not float32 of shape"),
        (lambda: sup_con(ONES[:1], torch.zeros(1).long(), temperature=1), "at least 2 rows"),
        (lambda: hard_nt_xent(ONES, ONES, temperature=1, beta=-1), "beta .* not -1"),
        (lambda: hard_nt_xent(ONES, ONES, temperature=1, tau_plus=1.0), r"in \[0, 1\), not 1.0"),
        (lambda: decoupled_nt_xent(ONES, ONES, temperature=1, sigma=0.0), "sigma .* not 0.0"),
        (lambda: losses.NTXentLoss(temperature=-2), "temperature .* above 0, not -2"),
        (lambda: losses.InfoNCELoss(temperature=0), "temperature .* above 0, not 0"),
        (lambda: losses.SupConLoss(temperature=math.inf), "temperature .* above 0, not inf"),
        (lambda: losses.HardNTXentLoss(tau_plus=2), r"in \[0, 1\), not 2"),
        (lambda: losses.DecoupledNTXentLoss(sigma=-1), "sigma .* above 0, not -1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_modules_call_their_functions():
    a, b, c = views(5, dtype=torch.float32)
    labels = labels_of(a)
    for module, inputs, expected in (
        (losses.NTXentLoss(0.2), (a, b), nt_xent(a, b, temperature=0.2)),
        (losses.NTXentLoss(0.2), (a, b, c), nt_xent_multi_view((a, b, c), temperature=0.2)),
        (losses.InfoNCELoss(0.2), (a, b), info_nce(a, b, temperature=0.2)),
        (losses.InfoNCELoss(0.2), (a, b, c), info_nce(a, b, c, temperature=0.2)),
        (losses.SupConLoss(0.2), (a, labels), sup_con(a, labels, temperature=0.2)),
        (
            losses.DecoupledNTXentLoss(0.2, sigma=0.4),
            (a, b),
            decoupled_nt_xent(a, b, temperature=0.2, sigma=0.4),
        ),
        (
            losses.HardNTXentLoss(0.2, beta=0.7, tau_plus=0.3),
            (a, b),
            hard_nt_xent(a, b, temperature=0.2, beta=0.7, tau_plus=0.3),
        ),
    ):
        assert torch.equal(module(*inputs), expected)
        assert "temperature=0.2" in repr(module)
    module = losses.NTXentLoss(torch.nn.Parameter(torch.tensor(0.2)))
    module(a, b).backward()
    assert module.temperature.grad != 0


def test_importing_losses_brings_in_torch_alone():
    heavy = ["pytorch_lightning", "kornia", "torchvision", "faiss", "wandb", "matplotlib", "timm"]
    code = f"""
import sslkit.losses, sslkit.miners, sys
print([m for m in {heavy} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
