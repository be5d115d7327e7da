import pytest
import torch
from torch import nn

from sslkit.methods.clusters import class_distances, clusters, mutual_information


def test_mutual_information_is_scikit_learns():
    from sklearn.metrics import normalized_mutual_info_score

    generator = torch.Generator().manual_seed(0)
    for parts in (1, 2, 5, 30):
        a = torch.randint(7, (60,), generator=generator) * 3
        b = torch.randint(parts, (60,), generator=generator)
        expected = normalized_mutual_info_score(a.numpy(), b.numpy())
        assert mutual_information(a, b).item() == pytest.approx(expected, abs=1e-5)
    assert mutual_information(torch.zeros(4), torch.ones(4)) == 1


def test_clusters():
    torch.manual_seed(0)
    z = torch.randn(50, 3)
    found = clusters(z, 6, rounds=100)  # it has come to rest: each row is with the nearest mean
    means = torch.stack([z[found == k].mean(0) for k in found.unique()])
    nearest = found.unique()[torch.cdist(z, means).argmin(1)]
    assert torch.equal(found, nearest)
    assert len(found.unique()) == 6
    assert torch.equal(found, clusters(z, 6, rounds=100))
    assert clusters(torch.zeros(5, 2), 3).shape == (5,)


def test_distances_within_and_between_classes_by_loops():
    torch.manual_seed(0)
    z = nn.functional.normalize(torch.randn(9, 4), dim=1)
    labels = torch.tensor([5, 5, 5, 1, 1, 1, 8, 8, 8])
    within, between = class_distances(z, labels)
    rows = [(i, j) for i in range(9) for j in range(9) if i != j and labels[i] == labels[j]]
    expected = sum(1 - float(z[i] @ z[j]) for i, j in rows) / len(rows)
    assert within.item() == pytest.approx(expected, abs=1e-5)
    centres = [z[labels == c].mean(0) for c in (1, 5, 8)]
    cosines = [
        float(a @ b / a.norm() / b.norm())
        for i, a in enumerate(centres)
        for j, b in enumerate(centres)
        if i != j
    ]
    assert between.item() == pytest.approx(1 - sum(cosines) / 6, abs=1e-5)
