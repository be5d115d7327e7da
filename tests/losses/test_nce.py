import math

import pytest
import torch

from sslkit.losses import nce


def test_it_is_the_papers_formula_by_a_loop():
    generator = torch.Generator().manual_seed(0)
    positive, negatives = (torch.randn(s, generator=generator) - 4 for s in ((5,), (5, 7)))
    n, m, total = 50, 7, 0.0
    for own, drawn in zip(positive.double().tolist(), negatives.double().tolist(), strict=True):
        p = math.exp(own)
        total -= math.log(p / (p + m / n))
        for value in drawn:
            p = math.exp(value)
            total -= math.log(1 - p / (p + m / n))
    assert nce(positive, negatives, classes=n).item() == pytest.approx(total / 5, rel=1e-5)
    exact = nce(positive.double(), negatives.double(), classes=n).item()
    assert exact == pytest.approx(total / 5, rel=1e-12)


def test_large_logits_and_half_precision_stay_finite():
    for dtype in (torch.float32, torch.bfloat16):
        positive = torch.tensor([-1e4, 1e4], dtype=dtype, requires_grad=True)
        loss = nce(positive, torch.tensor([[1e4], [-1e4]], dtype=dtype), classes=10)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(1e4, rel=1e-2)
        assert positive.grad.isfinite().all()


def test_its_optimum_is_the_data():
    """Where the model's probabilities are those of the data, no other constant is better."""
    data = torch.tensor([0.7, 0.2, 0.1]).double()
    rows = torch.arange(3).repeat_interleave(torch.tensor([70, 20, 10]))
    noise = torch.arange(3).expand(len(rows), 3)  # as many of each class, as uniform noise has
    losses = [
        nce(logits[rows], logits[noise], classes=3)
        for shift in (-0.3, 0.0, 0.3)
        for logits in [data.log() + shift]
    ]
    assert losses[1] < min(losses[0], losses[2])


@pytest.mark.parametrize(
    ("positive", "negatives", "classes", "said"),
    [
        (torch.zeros(3), torch.zeros(2, 4), 5, r"not \(3,\) and \(2, 4\)"),
        (torch.zeros(3, 1), torch.zeros(3, 4), 5, r"not \(3, 1\) and \(3, 4\)"),
        (torch.zeros(3), torch.zeros(3, 0), 5, r"not \(3,\) and \(3, 0\)"),
        (torch.zeros(3).long(), torch.zeros(3, 4), 5, "floats, not torch.int64"),
        (torch.zeros(3), torch.zeros(3, 4), 0, "classes must be at least 1, not 0"),
        ([0.0], torch.zeros(1, 4), 5, "positive must be a tensor"),
    ],
)
def test_bad_input(positive, negatives, classes, said):
    with pytest.raises((ValueError, TypeError), match=said):
        nce(positive, negatives, classes=classes)
