import pytest
import torch

from sslkit.losses import contrastive
from sslkit.miners import Pairs, all_pairs


def loop(z, labels, margin):
    """The paper's loss, pair by pair."""
    terms = []
    for i in range(len(z)):
        for j in range(i):
            d = (z[i] - z[j]).norm().item()
            same = labels[i] == labels[j]
            terms.append(d**2 / 2 if same else max(0.0, margin - d) ** 2 / 2)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("n", [2, 5, 12])
@pytest.mark.parametrize("margin", [0.5, 3.0])
def test_equals_the_papers_equation(n, margin):
    torch.manual_seed(n)
    z, labels = torch.randn(n, 4, dtype=torch.float64), torch.randint(3, (n,))
    expected = pytest.approx(loop(z, labels, margin), rel=1e-12)
    assert contrastive(z, labels, margin=margin).item() == expected
    assert contrastive(z, pairs=all_pairs(z, labels), margin=margin).item() == expected


def test_over_given_pairs():
    z = torch.tensor([[0.0], [3.0], [3.5]])
    pairs = Pairs(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([True, False]))
    assert contrastive(z, pairs=pairs, margin=1.0).item() == pytest.approx((9 + 0.5**2) / 4)


def test_equal_rows_of_different_labels_have_no_direction_to_part_in():
    z = torch.ones(2, 3, requires_grad=True)
    contrastive(z, torch.tensor([0, 1])).backward()
    assert not z.grad.any()
