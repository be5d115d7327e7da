import math

import lightly.loss
import pytest
import torch

from sslkit.losses import negative_cosine


def loop(predictions, targets):
    """Equation 1 of the paper, averaged over rows, in float64."""
    total = 0.0
    for p, z in zip(predictions.tolist(), targets.tolist(), strict=True):
        lengths = math.sqrt(sum(x * x for x in p)) * math.sqrt(sum(x * x for x in z))
        total -= sum(x * y for x, y in zip(p, z, strict=True)) / lengths
    return total / len(predictions)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_equals_the_papers_equation(n):
    predictions, targets = torch.randn(2, n, 5, dtype=torch.float64)
    expected = loop(predictions, targets)
    assert negative_cosine(predictions, targets).item() == pytest.approx(expected, rel=1e-12)


def test_equals_lightly_and_torch():
    # They differ for rows shorter than 1e-8, which they divide by 1e-8.
    peer = lightly.loss.NegativeCosineSimilarity()
    p, z = torch.randn(2, 8, 5)
    torch.testing.assert_close(negative_cosine(p, z), peer(p, z))
    torch.testing.assert_close(negative_cosine(p, z), -torch.cosine_similarity(p, z).mean())


def test_byol_is_the_same_up_to_scale():
    p, z = torch.nn.functional.normalize(torch.randn(2, 8, 5), dim=2)
    byol = (p - z).square().sum(1).mean()
    torch.testing.assert_close(2 + 2 * negative_cosine(p, z), byol)


def test_limits():
    z = torch.eye(4)
    assert negative_cosine(z, 3 * z).item() == -1
    assert negative_cosine(z, -z).item() == 1
    assert negative_cosine(z, z.flip(1)).item() == 0


def test_both_sides_get_a_gradient_and_detached_targets_none():
    p, z = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    negative_cosine(p, z.detach()).backward()
    assert p.grad is not None
    assert z.grad is None
    negative_cosine(p, z).backward()
    assert z.grad.abs().sum() > 0


def test_a_zero_row_has_cosine_zero():
    p = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert negative_cosine(p, torch.ones(2, 2)).item() == pytest.approx(-math.sqrt(0.5) / 2)
