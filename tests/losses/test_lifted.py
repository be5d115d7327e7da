import math

import pytest
import torch
from pytorch_metric_learning import distances
from pytorch_metric_learning import losses as peer

from sslkit.losses import lifted_structure


def loop(z, labels, margin):
    """The paper's loss, pair by pair."""
    n, terms = len(z), []
    for i in range(n):
        for j in range(i):
            if labels[i] == labels[j]:
                total = 0.0
                for k in range(n):
                    if labels[k] != labels[i]:
                        total += math.exp(margin - (z[i] - z[k]).norm())
                        total += math.exp(margin - (z[j] - z[k]).norm())
                violation = math.log(total) + (z[i] - z[j]).norm().item()
                terms.append(max(0.0, violation) ** 2)
    return sum(terms) / (2 * len(terms))


@pytest.mark.parametrize("labels", [[0, 0, 1], [4, 1, 4, 1, 1, 9], [3, 2, 1, 1, 2, 3, 3, 0, 8, 8]])
@pytest.mark.parametrize(("margin", "spread"), [(0.2, 4.0), (1.0, 1.0), (30.0, 1.0)])
def test_equals_the_papers_equation(labels, margin, spread):
    torch.manual_seed(len(labels))
    z = spread * torch.randn(len(labels), 4, dtype=torch.float64)
    labels = torch.tensor(labels)
    expected = pytest.approx(loop(z, labels, margin), rel=1e-12)
    assert lifted_structure(z, labels, margin=margin).item() == expected


def test_equals_pytorch_metric_learning():
    z, labels = torch.randn(20, 8), torch.arange(5).repeat(4)
    given = distances.LpDistance(normalize_embeddings=False)
    loss = peer.LiftedStructureLoss(neg_margin=0.7, distance=given)
    torch.testing.assert_close(lifted_structure(z, labels, margin=0.7), loss(z, labels))
