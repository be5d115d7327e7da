import math

import lightly.loss
import pytest
import torch

from sslkit.losses import vicreg


def loop(z0, z1, invariance, variance, covariance):
    """The paper's three terms with the normalisation of the authors' code, in float64."""
    n, d = z0.shape
    a, b = z0.T.tolist(), z1.T.tolist()
    loss = invariance * sum((a[i][k] - b[i][k]) ** 2 for i in range(d) for k in range(n)) / (n * d)
    for view in (a, b):
        centred = [[x - sum(column) / n for x in column] for column in view]
        for i in range(d):
            for j in range(d):
                c = sum(centred[i][k] * centred[j][k] for k in range(n)) / (n - 1)
                if i == j:
                    loss += variance * max(0, 1 - math.sqrt(c + 1e-4)) / d / 2
                else:
                    loss += covariance * c**2 / d
    return loss


@pytest.mark.parametrize(("n", "d"), [(2, 3), (7, 4), (5, 1)])
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 3.0, 0.5)])
def test_equals_the_papers_terms(n, d, weights):
    z0, z1 = torch.randn(2, n, d, dtype=torch.float64) * 0.8
    names = ("invariance", "variance", "covariance")
    loss = vicreg(z0, z1, **dict(zip(names, weights, strict=True))).item()
    assert loss == pytest.approx(loop(z0, z1, *weights), rel=1e-12)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (2.0, 3.0, 4.0)])
def test_equals_lightly(weights):
    peer = lightly.loss.VICRegLoss(*weights)
    z0, z1 = (torch.randn(2, 16, 8) * 0.5 + 3).unbind()
    invariance, variance, covariance = weights
    loss = vicreg(z0, z1, invariance=invariance, variance=variance, covariance=covariance)
    torch.testing.assert_close(loss, peer(z0, z1))


def test_limits():
    z = 2 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert vicreg(z, z).item() == 0  # alike, spread and decorrelated
    twice = z[:, [0, 0]]
    assert vicreg(twice, twice).item() == pytest.approx(2 * (16 / 3) ** 2)  # correlated
    assert vicreg(z, z + 1).item() == pytest.approx(25)  # moved by 1


def test_blind_to_a_common_shift():
    z0, z1 = torch.randn(2, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(vicreg(z0 + 7, z1 + 7), vicreg(z0, z1))
