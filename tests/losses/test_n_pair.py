import math

import pytest
import torch
from pytorch_metric_learning import distances
from pytorch_metric_learning import losses as peer

from sslkit.losses import n_pair
from sslkit.miners import Pairs


def loop(z, labels, l2=0.0):
    """The paper's loss, class by class."""
    pairs = []
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten().tolist()
        if len(rows) > 1:
            pairs.append(rows[:2])
    total = 0.0
    for a, p in pairs:
        others = sum(math.exp(z[a] @ z[j] - z[a] @ z[p]) for _, j in pairs if j != p)
        total += math.log1p(others) + l2 * (z[a] @ z[a] + z[p] @ z[p]).item() / 2
    return total / len(pairs)


@pytest.mark.parametrize("labels", [[0, 0], [4, 1, 4, 1, 1, 9], [3, 2, 1, 1, 2, 3, 3, 0, 8, 8]])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_equals_the_papers_equation(labels, l2):
    torch.manual_seed(len(labels))
    z, labels = torch.randn(len(labels), 4, dtype=torch.float64), torch.tensor(labels)
    expected = pytest.approx(loop(z, labels, l2), rel=1e-12)
    assert n_pair(z, labels, l2=l2).item() == expected


def test_over_given_pairs_a_row_of_the_same_label_is_no_negative():
    z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    labels = torch.tensor([7, 7, 7, 3, 3])
    first, second = torch.tensor([0, 0, 3, 0]), torch.tensor([1, 2, 4, 3])
    pairs = Pairs(first, second, torch.tensor([True, True, True, False]))
    expected = math.log1p(math.exp(-2)) + math.log1p(math.exp(-3)) + math.log1p(2 * math.exp(-3))
    assert n_pair(z, labels, pairs=pairs).item() == pytest.approx(expected / 3)


def test_equals_pytorch_metric_learning():
    z, labels = torch.randn(24, 8), torch.arange(6).repeat(4)
    given = peer.NPairsLoss(distance=distances.DotProductSimilarity(normalize_embeddings=False))
    torch.testing.assert_close(n_pair(z, labels), given(z, labels))
