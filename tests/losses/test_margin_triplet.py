import pytest
import torch
from pytorch_metric_learning import distances, losses, reducers

from sslkit.losses import margin_triplet


def loop(z0, z1, margin, semi_hard):
    """Table 2 of the paper, anchor by anchor, in float64."""
    z = torch.cat([z0, z1]).double()
    n, total = len(z0), 0.0
    for i in range(2 * n):
        cosine = [torch.cosine_similarity(z[i], z[k], dim=0).item() for k in range(2 * n)]
        positive = cosine[(i + n) % (2 * n)]
        negatives = [s for k, s in enumerate(cosine) if k % n != i % n]
        if semi_hard:
            negatives = sorted(s for s in negatives if s < positive)[-1:]
        if negatives:
            terms = [max(0, s - positive + margin) for s in negatives]
            total += sum(terms) / len(terms)
    return total / (2 * n)


@pytest.mark.parametrize("n", [2, 3, 9])
@pytest.mark.parametrize("margin", [0.1, 0.8])
@pytest.mark.parametrize("semi_hard", [False, True])
def test_equals_the_papers_table(n, margin, semi_hard):
    torch.manual_seed(n)
    z0, z1 = torch.randn(2, n, 6, dtype=torch.float64)
    expected = loop(z0, z1, margin, semi_hard)
    loss = margin_triplet(z0, z1, margin=margin, semi_hard=semi_hard).item()
    assert loss == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_equals_pytorch_metric_learning():
    # Its TripletMarginLoss averages the triplets above 0 alone; with MeanReducer, all.
    peer = losses.TripletMarginLoss(
        margin=0.8,
        distance=distances.CosineSimilarity(),
        reducer=reducers.MeanReducer(),
    )
    z0, z1 = torch.randn(2, 6, 4)
    expected = peer(torch.cat([z0, z1]), torch.arange(6).repeat(2))
    torch.testing.assert_close(margin_triplet(z0, z1, margin=0.8), expected)


@pytest.mark.parametrize("semi_hard", [False, True])
def test_limits(semi_hard):
    z = torch.eye(4, 8)
    for margin, expected in [(0.5, 0), (1.5, 0.5)]:  # negatives are orthogonal
        loss = margin_triplet(z, z, margin=margin, semi_hard=semi_hard)
        assert loss.item() == expected
    # No negative is less similar than an orthogonal positive.
    orthogonal = margin_triplet(z, z.roll(4, 1), margin=0.5, semi_hard=semi_hard)
    assert orthogonal.item() == (0 if semi_hard else 0.5)


def test_an_anchor_is_not_its_own_negative():
    z = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    other = z * torch.linspace(0.1, 3, 64)[:, None]  # the same cosines up to rounding
    assert margin_triplet(z, other, margin=0.01, semi_hard=True).item() == 0
