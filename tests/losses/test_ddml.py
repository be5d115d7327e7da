import math

import pytest
import torch

from sslkit.losses import ddml
from sslkit.miners import Pairs, all_pairs


def loop(z, labels, threshold, sharpness):
    """The paper's loss, pair by pair."""
    terms = []
    for i in range(len(z)):
        for j in range(i):
            sign = 1 if labels[i] == labels[j] else -1
            excess = 1 - sign * (threshold - (z[i] - z[j]).square().sum().item())
            terms.append(math.log1p(math.exp(sharpness * excess)) / sharpness)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("n", [2, 5, 12])
@pytest.mark.parametrize(("threshold", "sharpness"), [(1.5, 0.5), (3.0, 10.0)])
def test_equals_the_papers_equation(n, threshold, sharpness):
    torch.manual_seed(n)
    z, labels = torch.randn(n, 3, dtype=torch.float64), torch.randint(3, (n,))
    options = {"threshold": threshold, "sharpness": sharpness}
    expected = pytest.approx(loop(z, labels, **options), rel=1e-12)
    assert ddml(z, labels, **options).item() == expected
    assert ddml(z, pairs=all_pairs(z, labels), **options).item() == expected


def test_over_given_pairs():
    z = torch.tensor([[0.0], [1.0], [3.0]])
    pairs = Pairs(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([True, False]))
    value = ddml(z, pairs=pairs, threshold=2.0, sharpness=1.0)  # 1 - (2 - 1), 1 + (2 - 4)
    assert value.item() == pytest.approx((math.log(2) + math.log1p(math.exp(-1))) / 2)


def test_is_a_hinge_where_sharp():
    z = torch.tensor([[0.0], [2.0]])
    far = ddml(z, torch.tensor([0, 0]), threshold=2.0, sharpness=1e4)
    assert far.item() == pytest.approx(1 - (2 - 4))
    assert ddml(z, torch.tensor([0, 1]), threshold=2.0, sharpness=1e4).item() == 0
