import lightly.loss
import pytest
import torch

from sslkit.losses import barlow_twins


def loop(z0, z1, redundancy):
    """Equations 1 and 2 of the paper with the authors' standardisation, in float64."""
    n, d = z0.shape

    def standard(z):
        columns = []
        for column in z.T.tolist():
            mean = sum(column) / n
            variance = sum((x - mean) ** 2 for x in column) / n
            columns.append([(x - mean) / (variance + 1e-5) ** 0.5 for x in column])
        return columns

    a, b = standard(z0), standard(z1)
    loss = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(a[i][k] * b[j][k] for k in range(n)) / n
            loss += (c - 1) ** 2 if i == j else redundancy * c**2
    return loss


@pytest.mark.parametrize(("n", "d"), [(2, 3), (7, 4), (5, 1)])
@pytest.mark.parametrize("redundancy", [0.0, 5e-3, 2.0])
def test_equals_the_papers_equation(n, d, redundancy):
    z0, z1 = torch.randn(2, n, d, dtype=torch.float64)
    expected = loop(z0, z1, redundancy)
    loss = barlow_twins(z0, z1, redundancy=redundancy).item()
    assert loss == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("redundancy", [5e-3, 0.1])
def test_equals_lightly(redundancy):
    peer = lightly.loss.BarlowTwinsLoss(lambda_param=redundancy)
    z0, z1 = (torch.randn(2, 16, 8) * torch.rand(8) + 3).unbind()
    torch.testing.assert_close(barlow_twins(z0, z1, redundancy=redundancy), peer(z0, z1))


def test_limits():
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    assert barlow_twins(z, z).item() == pytest.approx(0, abs=1e-9)  # decorrelated and alike
    assert barlow_twins(z, z.roll(1, 1), redundancy=0.0).item() == pytest.approx(2)  # unrelated
    twice = z[:, [0, 0]]
    assert barlow_twins(twice, twice, redundancy=0.5).item() == pytest.approx(1, rel=1e-4)


def test_constant_dimensions_cost_one_each():
    assert barlow_twins(torch.full((4, 3), 0.1), torch.full((4, 3), 7.0)).item() == pytest.approx(3)


def test_blind_to_scale_and_shift_of_dimensions():
    z0, z1 = torch.randn(2, 9, 4, dtype=torch.float64)
    moved = 300 * z0 - torch.arange(4.0)
    torch.testing.assert_close(barlow_twins(moved, z1), barlow_twins(z0, z1), rtol=1e-4, atol=0)


def test_a_variance_beyond_float32_is_not_hidden():
    z = torch.randn(4, 3)
    assert barlow_twins(1e25 * z, z).isnan()
