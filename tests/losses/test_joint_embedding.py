"""What holds for all losses between two views, and for soft cross-entropy."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslkit.losses import (
    BarlowTwinsLoss,
    MarginTripletLoss,
    NegativeCosineLoss,
    NTLogisticLoss,
    SoftCrossEntropyLoss,
    VICRegLoss,
    barlow_twins,
    margin_triplet,
    negative_cosine,
    nt_logistic,
    soft_cross_entropy,
    vicreg,
)

SYMMETRIC = {
    "negative_cosine": (negative_cosine, NegativeCosineLoss, {}),
    "barlow_twins": (barlow_twins, BarlowTwinsLoss, {"redundancy": 0.1}),
    "vicreg": (vicreg, VICRegLoss, {"invariance": 2.0, "variance": 3.0, "covariance": 4.0}),
    "nt_logistic": (nt_logistic, NTLogisticLoss, {"temperature": 0.3}),
    "nt_logistic, semi-hard": (
        nt_logistic,
        NTLogisticLoss,
        {"temperature": 0.3, "semi_hard": True},
    ),
    "margin_triplet": (margin_triplet, MarginTripletLoss, {"margin": 0.7}),
    "margin_triplet, semi-hard": (
        margin_triplet,
        MarginTripletLoss,
        {"margin": 0.7, "semi_hard": True},
    ),
}
ALL = SYMMETRIC | {
    "soft_cross_entropy": (soft_cross_entropy, SoftCrossEntropyLoss, {"label_smoothing": 0.2}),
}
symmetric = pytest.mark.parametrize("name", SYMMETRIC)
every = pytest.mark.parametrize("name", ALL)


def loss_of(name):
    function, _, options = ALL[name]
    return partial(function, **options)


def data(n=6, d=4, dtype=torch.float32, seed=0):
    """Views that agree in part."""
    random = torch.Generator().manual_seed(seed)
    z0, noise = torch.randn(2, n, d, generator=random, dtype=torch.float64).to(dtype)
    return z0, z0 + 0.7 * noise


def with_gradient(name, z0, z1):
    z0, z1 = z0.clone().requires_grad_(), z1.clone().requires_grad_()
    loss = loss_of(name)(z0, z1)
    return loss.detach(), torch.cat(torch.autograd.grad(loss, (z0, z1)))


@every
def test_gradients(name):
    z0, z1 = (z.requires_grad_() for z in data(5, 3, torch.float64))
    assert torch.autograd.gradcheck(loss_of(name), (z0, z1))


@every
def test_float32_under_autocast_and_for_bf16_input(name):
    z0, z1 = data(64, 16)
    exact = loss_of(name)(z0, z1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss_of(name)(z0, z1), exact)
    low = loss_of(name)(z0.bfloat16(), z1.bfloat16())
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(exact.item(), rel=2e-2)
    assert loss_of(name)(z0.double(), z1).dtype == torch.float64


@every
@pytest.mark.parametrize("view", [0, 1])
def test_what_is_not_finite_is_not_hidden(name, view):
    for value in (math.nan, math.inf, -math.inf):
        views = data()
        views[view][2, 1] = value
        loss = loss_of(name)(*views)
        assert loss.isnan() if math.isnan(value) else not loss.isfinite()


@every
def test_degenerate_embeddings_have_finite_gradients(name):
    z0, z1 = data()
    constant = z0[:1].expand(6, 4)
    for views in [(constant, constant), (constant, z1), (0 * z0, z1), (0 * z0, 0 * z1)]:
        loss, gradient = with_gradient(name, *views)
        assert loss.isfinite()
        assert gradient.isfinite().all()
    z0[3] = 0
    assert with_gradient(name, z0, z1)[1].isfinite().all()
    large, gradient = with_gradient(name, 1e4 * z0, 1e4 * z1)
    assert large.isfinite()
    assert gradient.isfinite().all()


@every
def test_non_contiguous_input(name):
    views = data()
    scattered = [z.T.contiguous().T for z in views]
    assert not any(z.is_contiguous() for z in scattered)
    expected = with_gradient(name, *views)
    torch.testing.assert_close(with_gradient(name, *scattered), expected)


@every
def test_compiles_in_one_graph(name):
    views = data()
    compiled = torch.compile(loss_of(name), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*views), loss_of(name)(*views))


@every
@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 6), d=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_the_order_of_the_images_does_not_matter(name, n, d, seed):
    z0, z1 = data(n, d, torch.float64, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(loss_of(name)(z0[order], z1[order]), loss_of(name)(z0, z1))


@symmetric
@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 6), d=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_the_order_of_the_views_does_not_matter(name, n, d, seed):
    z0, z1 = data(n, d, torch.float64, seed)
    torch.testing.assert_close(loss_of(name)(z1, z0), loss_of(name)(z0, z1))


@pytest.mark.parametrize("name", [n for n in SYMMETRIC if n not in ("barlow_twins", "vicreg")])
def test_blind_to_the_scale_of_rows(name):
    z0, z1 = data()
    expected = loss_of(name)(z0, z1)
    torch.testing.assert_close(loss_of(name)(1e4 * z0, 1e-3 * z1), expected)


@symmetric
@pytest.mark.parametrize(
    ("z0", "z1", "message"),
    [
        (torch.ones(3, 4), torch.ones(2, 4), r"must have the shape of .*\(3, 4\), not \(2, 4\)"),
        (torch.ones(3), torch.ones(3), r"must be \(N, D\), not \(3,\)"),
        (torch.ones(3, 4).int(), torch.ones(3, 4), "floating-point dtype, not torch.int32"),
        (torch.ones(0, 4), torch.ones(0, 4), "must have at least . rows?,.* not 0"),
    ],
)
def test_bad_embeddings(name, z0, z1, message):
    with pytest.raises(ValueError, match=message):
        loss_of(name)(z0, z1)


@pytest.mark.parametrize("name", [n for n in SYMMETRIC if n != "negative_cosine"])
def test_one_image_is_too_few(name):
    with pytest.raises(ValueError, match=r"z0 must have at least 2 rows, for a .*, not 1"):
        loss_of(name)(torch.ones(1, 4), torch.ones(1, 4))


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("barlow_twins", "redundancy", -1.0, "at least 0, not -1.0"),
        ("barlow_twins", "redundancy", math.nan, "at least 0, not nan"),
        ("vicreg", "invariance", -1.0, "at least 0, not -1.0"),
        ("vicreg", "variance", math.inf, "at least 0, not inf"),
        ("vicreg", "covariance", math.nan, "at least 0, not nan"),
        ("nt_logistic", "temperature", 0.0, "above 0, not 0.0"),
        ("margin_triplet", "margin", 0.0, "above 0, not 0.0"),
        ("margin_triplet", "margin", math.nan, "above 0, not nan"),
        ("soft_cross_entropy", "label_smoothing", 1.0, r"in \[0, 1\), not 1.0"),
        ("soft_cross_entropy", "label_smoothing", -0.1, r"in \[0, 1\), not -0.1"),
    ],
)
def test_bad_options(name, option, value, message):
    function, module, options = ALL[name]
    with pytest.raises(ValueError, match=f"{option} must be .*{message}"):
        function(*data(), **options | {option: value})
    with pytest.raises(ValueError, match=f"{option} must be .*{message}"):
        module(**options | {option: value})


@every
@pytest.mark.parametrize("gather", [True, False])
def test_module(name, gather):
    _, module, options = ALL[name]
    module = module(**options, gather=gather)
    assert torch.equal(module(*data()), loss_of(name)(*data()))
    for option, value in (options | {"gather": gather}).items():
        assert f"{option}={value}" in repr(module)
