import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from sslkit.losses import triplet_margin
from sslkit.miners import all_pairs, distance_weighted, easy_positive, hard, semi_hard

SEEDS = range(5)
MINERS = [hard, semi_hard, easy_positive, distance_weighted]


def batch(seed, n=14, dim=4):
    torch.manual_seed(seed)
    return torch.randn(n, dim, dtype=torch.float64), torch.randint(4, (n,))


def squares(z):
    z = F.normalize(z, dim=1)
    return torch.cdist(z, z).square().tolist()


def others(labels, a):
    """The positives and the negatives of an anchor."""
    rows = [i for i in range(len(labels)) if i != a]
    positives = [i for i in rows if labels[i] == labels[a]]
    return positives, [i for i in rows if labels[i] != labels[a]]


def found(triplets):
    return sorted(zip(*(index.tolist() for index in triplets), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_hard(seed):
    z, labels = batch(seed)
    d, expected = squares(z), []
    for a in range(len(z)):
        positives, negatives = others(labels, a)
        if positives and negatives:
            nearest = min(negatives, key=lambda i: d[a][i])
            expected.append((a, max(positives, key=lambda i: d[a][i]), nearest))
    assert found(hard(z, labels)) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_semi_hard(seed, margin):
    z, labels = batch(seed)
    d, expected = squares(z), []
    for a in range(len(z)):
        positives, negatives = others(labels, a)
        for p in positives:
            within = [n for n in negatives if d[a][p] < d[a][n] < d[a][p] + margin]
            if within:
                expected.append((a, p, min(within, key=lambda n: d[a][n])))
    assert expected
    assert found(semi_hard(z, labels, margin=margin)) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("semi", [False, True])
def test_easy_positive(seed, semi):
    z, labels = batch(seed)
    d, expected = squares(z), []
    for a in range(len(z)):
        positives, negatives = others(labels, a)
        if positives:
            p = min(positives, key=lambda i: d[a][i])
            farther = [n for n in negatives if not semi or d[a][n] > d[a][p]]
            if farther:
                expected.append((a, p, min(farther, key=lambda n: d[a][n])))
    assert found(easy_positive(z, labels, semi_hard=semi)) == expected


def test_worked_by_hand():
    degrees = torch.tensor([0.0, 20, 50, 30, 90, 45]).deg2rad()
    z = 3 * torch.stack([degrees.cos(), degrees.sin()], 1)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    assert found(hard(z, labels))[:2] == [(0, 2, 3), (1, 2, 3)]
    assert found(easy_positive(z, labels))[2:4] == [(2, 1, 5), (3, 4, 1)]
    assert found(easy_positive(z, labels, semi_hard=True)) == [
        (0, 1, 3),
        (1, 0, 5),
        (2, 1, 4),
        (4, 3, 1),
    ]
    assert found(semi_hard(z, labels, margin=0.15)) == [(0, 1, 3), (1, 0, 5)]


def test_a_negative_as_far_as_the_positive_is_not_semi_hard():
    z, labels = torch.eye(3)[[0, 1, 1, 2]], torch.tensor([0, 0, 1, 1])
    assert not found(semi_hard(z, labels, margin=1.0))
    assert not found(easy_positive(z, labels, semi_hard=True))
    assert found(easy_positive(z, labels))[0] == (0, 1, 2)


def test_all_pairs():
    labels = torch.tensor([7, 3, 7, 7])
    first, second, same = all_pairs(torch.zeros(4, 2), labels)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert same.tolist() == [False, True, True, False, False, True]


def weights(d, dim, cutoff, farthest):
    """1 / q(d) of the paper for an anchor's distances to its negatives."""
    near = {n: x for n, x in d.items() if x <= farthest} or d
    near = {n: max(x, cutoff) for n, x in near.items()}
    weight = {n: 1 / (x ** (dim - 2) * (1 - x**2 / 4) ** ((dim - 3) / 2)) for n, x in near.items()}
    return {n: w / sum(weight.values()) for n, w in weight.items()}


@pytest.mark.parametrize(("dim", "farthest"), [(2, 1.9), (4, 1.4), (8, 0.3)])
def test_distance_weighted_draws_in_proportion(dim, farthest):
    z = torch.randn(6, dim, generator=torch.Generator().manual_seed(dim))
    labels = torch.tensor([0, 0, 1, 1, 2, 3])
    generator, draws, drawn = torch.Generator().manual_seed(0), 1000, Counter()
    for _ in range(draws):
        options = {"cutoff": 0.2, "farthest": farthest, "generator": generator}
        drawn.update(found(distance_weighted(z, labels, **options)))
    d = squares(z.double())
    for a, p in [(0, 1), (1, 0), (2, 3), (3, 2)]:
        distance = {n: math.sqrt(d[a][n]) for n in others(labels, a)[1]}
        probability = weights(distance, dim, 0.2, farthest)
        counts = {n: count for (i, j, n), count in drawn.items() if (i, j) == (a, p)}
        assert sum(counts.values()) == draws
        assert counts.keys() <= probability.keys()
        statistic = sum(
            (counts.get(n, 0) - draws * x) ** 2 / (draws * x) for n, x in probability.items()
        )
        assert statistic < 20  # at most 3 degrees of freedom


def test_distance_weighted_in_many_dimensions():
    z = torch.randn(32, 2048)
    labels = torch.arange(16).repeat(2)
    z[16] = -z[1]  # of an antipode the density is 0
    z[17] = z[0]
    anchor, positive, negative = distance_weighted(z, labels)
    assert len(anchor) == 32
    assert (labels[anchor] == labels[positive]).all()
    assert (labels[anchor] != labels[negative]).all()
    assert negative[anchor == 0].tolist() == [17]  # half the usual distance: all the weight


@pytest.mark.parametrize("miner", MINERS)
def test_edges(miner):
    z, labels = batch(0)
    for few in (1, 2):
        assert len(miner(z[:few], torch.arange(few)).anchor) == 0
    assert len(miner(z, torch.zeros_like(labels)).anchor) == 0
    for index in miner(z.requires_grad_(), labels):
        assert index.dtype == torch.int64
    same = torch.ones(6, 3)
    triplets = miner(same, torch.tensor([0, 0, 0, 1, 1, 2]))
    assert triplet_margin(same, triplets=triplets).isfinite()


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_reaches_the_loss(miner, value):
    for rows in ([3], [0, 5], range(14)):
        z, labels = batch(0)
        z[rows] = value
        triplets = miner(z, labels)
        assert all(((index >= 0) & (index < 14)).all() for index in triplets)
        assert triplet_margin(z, triplets=triplets).isnan()


@pytest.mark.parametrize("miner", [*MINERS, all_pairs])
def test_bad_input(miner):
    with pytest.raises(ValueError, match=r"3 integers, one a row, not .* \(2,\)"):
        miner(torch.ones(3, 2), torch.zeros(2).long())


@pytest.mark.parametrize("miner", MINERS)
def test_bad_embeddings(miner):
    with pytest.raises(ValueError, match=r"embeddings must be \(N, D\), not \(3,\)"):
        miner(torch.ones(3), torch.zeros(3).long())


@pytest.mark.parametrize("bounds", [(0, 1.4), (1.4, 1.4), (0.5, 2.1), (math.nan, 1)])
def test_bad_options(bounds):
    z, labels = batch(0)
    cutoff, farthest = bounds
    with pytest.raises(ValueError, match=f"not {cutoff} and {farthest}"):
        distance_weighted(z, labels, cutoff=cutoff, farthest=farthest)
    with pytest.raises(ValueError, match="margin must be a finite number above 0, not 0"):
        semi_hard(z, labels, margin=0)
