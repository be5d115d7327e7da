import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import normalized_mutual_info_score

from sslkit.losses import facility_location


def clustering(z, medoids):
    """F, and the medoid of each row."""
    nearest = [min((math.dist(row, z[m]), m) for m in medoids) for row in z]
    return -sum(d for d, _ in nearest), [m for _, m in nearest]


def score(z, labels, margin, medoids):
    """F + margin (1 - NMI), NMI by scikit-learn."""
    energy, assigned = clustering(z, medoids)
    nmi = normalized_mutual_info_score(labels, assigned, average_method="geometric")
    return energy + margin * (1 - nmi)


def truth(z, labels):
    total = 0.0
    for label in set(labels):
        members = [row for row, own in zip(z, labels, strict=True) if own == label]
        total += max(clustering(members, [m])[0] for m in range(len(members)))
    return total


def search(z, labels, margin, refinements):
    """Algorithms 1 and 2 of the paper."""
    medoids = []
    for _ in set(labels):
        free = [i for i in range(len(z)) if i not in medoids]
        medoids.append(max(free, key=lambda i: score(z, labels, margin, [*medoids, i])))
    for _ in range(refinements):
        for k in range(len(medoids)):
            _, assigned = clustering(z, medoids)
            members = [i for i in range(len(z)) if assigned[i] == medoids[k]]
            others = medoids[:k], medoids[k + 1 :]
            medoids[k] = max(
                members,
                key=lambda i: score(z, labels, margin, [*others[0], i, *others[1]]),
            )
    return medoids


def batch(labels, seed):
    torch.manual_seed(seed)
    return F.normalize(torch.randn(len(labels), 3, dtype=torch.float64), dim=1)


LABELS = [[0, 0, 1, 1], [4, 1, 4, 1, 1, 9], [3, 2, 1, 1, 2, 3, 3, 0, 8, 8], [0] * 5 + [1] * 7]


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("margin", "refinements"), [(1.0, 0), (1.0, 3), (20.0, 3)])
def test_equals_the_papers_algorithm(labels, seed, margin, refinements):
    z = batch(labels, seed)
    rows = z.tolist()
    medoids = search(rows, labels, margin, refinements)
    expected = max(0.0, score(rows, labels, margin, medoids) - truth(rows, labels))
    value = facility_location(2 * z, torch.tensor(labels), margin=margin, refinements=refinements)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_refinement_moves_towards_the_maximum(seed):
    labels = LABELS[2]
    z = batch(labels, seed)
    rows, k = z.tolist(), len(set(labels))
    best = max(score(rows, labels, 5.0, s) for s in itertools.combinations(range(len(z)), k))
    values = [
        facility_location(z, torch.tensor(labels), margin=5.0, refinements=r).item()
        for r in (0, 1, 5)
    ]
    assert values == sorted(values)
    assert values[-1] <= best - truth(rows, labels) + 1e-9


def test_a_perfect_clustering_of_well_parted_labels_costs_nothing():
    labels = torch.arange(4).repeat(3)
    z = (torch.eye(4)[labels] + 1e-3 * torch.randn(12, 4)).requires_grad_()
    value = facility_location(z, labels, margin=0.1)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert z.grad.isfinite().all()
    assert facility_location(z, labels.sort().values, margin=0.1) > 1
