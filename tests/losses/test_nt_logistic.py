import math

import pytest
import torch

from sslkit.losses import nt_logistic


def loop(z0, z1, temperature, semi_hard):
    """Table 2 of the paper, anchor by anchor, in float64."""
    z = torch.cat([z0, z1]).double()
    n, total = len(z0), 0.0

    def log_sigmoid(x):
        return -math.log1p(math.exp(-x))

    for i in range(2 * n):
        cosine = [torch.cosine_similarity(z[i], z[k], dim=0).item() for k in range(2 * n)]
        positive = cosine[(i + n) % (2 * n)]
        negatives = [s for k, s in enumerate(cosine) if k % n != i % n]
        if semi_hard:
            negatives = sorted(s for s in negatives if s < positive)[-1:]
        total -= log_sigmoid(positive / temperature)
        if negatives:
            terms = [log_sigmoid(-s / temperature) for s in negatives]
            total -= sum(terms) / len(terms)
    return total / (2 * n)


@pytest.mark.parametrize("n", [2, 3, 9])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("semi_hard", [False, True])
def test_equals_the_papers_table(n, temperature, semi_hard):
    torch.manual_seed(n)
    z0, z1 = torch.randn(2, n, 6, dtype=torch.float64)
    expected = loop(z0, z1, temperature, semi_hard)
    loss = nt_logistic(z0, z1, temperature=temperature, semi_hard=semi_hard).item()
    assert loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("semi_hard", [False, True])
def test_the_temperature_gets_its_gradient(semi_hard):
    z0, z1 = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b, t: nt_logistic(a, b, temperature=t, semi_hard=semi_hard), (z0, z1, temperature)
    )


def test_limits():
    z = torch.eye(4, 8)
    alike = math.log1p(math.exp(-2))
    for semi_hard in (False, True):
        loss = nt_logistic(z, z, temperature=0.5, semi_hard=semi_hard)
        assert loss.item() == pytest.approx(alike + math.log(2))  # negatives are orthogonal
    orthogonal = z.roll(4, 1)
    assert nt_logistic(z, orthogonal, temperature=0.5).item() == pytest.approx(2 * math.log(2))
    # No negative is less similar than an orthogonal positive: its term alone is left.
    alone = nt_logistic(z, orthogonal, temperature=0.5, semi_hard=True)
    assert alone.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("semi_hard", [False, True])
def test_small_temperatures_stay_finite(semi_hard):
    z = torch.eye(4, requires_grad=True)
    temperature = torch.tensor(1e-4, requires_grad=True)
    loss = nt_logistic(z, -z, temperature=temperature, semi_hard=semi_hard)
    loss.backward()
    assert loss.item() == pytest.approx(1e4 + (0 if semi_hard else math.log(2)))
    assert z.grad.isfinite().all()
    assert temperature.grad.isfinite()
