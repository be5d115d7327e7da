import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import balanced_accuracy_score, normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix

from sslkit.evaluation import metrics
from sslkit.evaluation.metrics import (
    map_at_r,
    mean_per_class_accuracy,
    nmi,
    pairwise_f1,
    recall_at_k,
    voc_ap11,
)


def embedded(n, classes, seed=0, dim=8):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    centres = torch.randn(classes, dim, generator=generator)
    return centres[labels] + torch.randn(n, dim, generator=generator), labels


def ranked(z, labels, queries=None):
    """For each query with another of its label: whether each other, nearest first, has it."""
    z, labels = z.double().numpy(), labels.tolist()
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    found = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        if queries is not None:
            others = [j for j in others if queries[i] and not queries[j]]
        others.sort(key=lambda j: -float(z[i] @ z[j]))
        same = [labels[j] == labels[i] for j in others]
        if any(same):
            found.append(same)
    return found


def recall_by_hand(z, labels, k, queries=None):
    found = ranked(z, labels, queries)
    return 100 * sum(any(same[:k]) for same in found) / len(found)


def map_by_hand(z, labels, queries=None):
    scores = []
    for same in ranked(z, labels, queries):
        r = sum(same)
        scores.append(sum(sum(same[: i + 1]) / (i + 1) for i in range(r) if same[i]) / r)
    return 100 * sum(scores) / len(scores)


@pytest.mark.parametrize("block", [2**20, 64])
@pytest.mark.parametrize(("n", "classes"), [(120, 5), (60, 40), (30, 1), (2, 1)])
def test_search_metrics_are_the_loops(n, classes, block, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK", block)
    z, labels = embedded(n, classes)
    ks = sorted({1, min(2, n - 1), min(8, n - 1), n - 1})
    recall = recall_at_k(z, labels, ks)
    assert list(recall) == ks
    assert list(recall.values()) == pytest.approx([recall_by_hand(z, labels, k) for k in ks])
    assert map_at_r(z, labels) == pytest.approx(map_by_hand(z, labels))


@pytest.mark.parametrize(("n", "classes"), [(200, 6), (80, 50)])
def test_search_metrics_are_pytorch_metric_learnings(n, classes):
    z, labels = embedded(n, classes)
    assert (labels.bincount() == 1).any() == (classes == 50)  # queries that both leave out
    peer = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"), device=torch.device("cpu")
    ).get_accuracy(torch.nn.functional.normalize(z), labels)
    assert recall_at_k(z, labels, [1])[1] == pytest.approx(100 * peer["precision_at_1"])
    assert map_at_r(z, labels) == pytest.approx(100 * peer["mean_average_precision_at_r"])


@pytest.mark.parametrize("block", [2**20, 64])
@pytest.mark.parametrize(("n", "classes", "part"), [(120, 5, 0.5), (60, 40, 0.3), (60, 4, 0.9)])
def test_queries_are_searched_for_in_the_gallery_alone(n, classes, part, block, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK", block)
    z, labels = embedded(n, classes)
    queries = torch.rand(n, generator=torch.Generator().manual_seed(1)) < part
    gallery = int((~queries).sum())
    ks = sorted({1, 2, gallery})
    recall = recall_at_k(z, labels, ks, queries=queries)
    by_hand = [recall_by_hand(z, labels, k, queries) for k in ks]
    assert list(recall.values()) == pytest.approx(by_hand)
    assert recall[gallery] == 100
    assert map_at_r(z, labels, queries=queries) == pytest.approx(map_by_hand(z, labels, queries))
    units = torch.nn.functional.normalize(z)
    peer = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"), device=torch.device("cpu")
    ).get_accuracy(units[queries], labels[queries], units[~queries], labels[~queries])
    assert recall[1] == pytest.approx(100 * peer["precision_at_1"])
    found = map_at_r(z, labels, queries=queries)
    assert found == pytest.approx(100 * peer["mean_average_precision_at_r"])


def test_a_query_finds_no_other_query():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    labels, queries = torch.tensor([0, 0, 1, 0]), torch.tensor([True, True, False, False])
    assert recall_at_k(z, labels, [1, 2], queries=queries) == {1: 100, 2: 100}
    labels = torch.tensor([0, 0, 0, 1])  # its duplicate does not count
    assert recall_at_k(z, labels, [1, 2], queries=queries) == {1: 0, 2: 100}
    assert map_at_r(z, labels, queries=queries) == 0


def test_a_query_is_left_out_by_its_row_and_its_duplicates_are_not():
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat_interleave(6, 0)
    pairs = torch.tensor([0, 1]).repeat_interleave(6)
    assert recall_at_k(z, pairs, [1, 11]) == {1: 100, 11: 100}
    assert map_at_r(z, pairs) == 100
    apart = torch.arange(12) % 6  # the other of a label is in the other place, and 6th at best
    assert recall_at_k(z, apart, [1, 5, 11]) == {1: 0, 5: 0, 11: 100}
    assert map_at_r(z, apart) == 0


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_search_metrics_do_not_see_length_strides_or_dtype(scale):
    z, labels = embedded(50, 4)
    recall, precision = recall_at_k(z, labels, [1, 3]), map_at_r(z, labels)
    strided = z.T.contiguous().T
    assert not strided.is_contiguous()
    for form in (strided * scale, z.double() * scale, (z * scale).requires_grad_()):
        for ints in (labels.to(torch.uint8), labels.repeat_interleave(2)[::2]):
            assert recall_at_k(form, ints, [1, 3]) == recall
            assert map_at_r(form, ints) == pytest.approx(precision)


def test_memory_is_bounded_by_blocks(monkeypatch):
    z, labels = embedded(2000, 10, dim=64)
    monkeypatch.setattr(metrics, "_BLOCK", 2**16)
    held = []
    blocks = metrics._nearest_others

    def watched(*args):
        for block, rows in blocks(*args):
            held.append(rows.numel())
            yield block, rows

    monkeypatch.setattr(metrics, "_nearest_others", watched)
    assert 10 < map_at_r(z, labels) < 100
    assert len(held) > 5
    assert max(held) <= 2**16


def groups(n, most, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, most, (n,), generator=generator) * 3


@pytest.mark.parametrize(
    ("labels", "clusters"),
    [
        (groups(500, 7, 0), groups(500, 12, 1)),
        (groups(500, 7, 0), groups(500, 7, 0) // 2),
        (groups(40, 30, 0), torch.arange(40)),
        (torch.zeros(9).long(), torch.arange(9)),
        (torch.arange(9), torch.arange(9).flip(0)),
        (torch.zeros(9).long(), torch.ones(9).long()),
        (torch.tensor([4]), torch.tensor([2])),
    ],
)
def test_clustering_metrics_are_scikit_learns_and_the_loop(labels, clusters):
    expected = 100 * normalized_mutual_info_score(labels, clusters)
    assert nmi(labels, clusters) == pytest.approx(expected, abs=1e-10)
    assert nmi(clusters.to(torch.int16), labels) == pytest.approx(expected, abs=1e-10)
    lists, hits, misses = (labels.tolist(), clusters.tolist()), 0, 0
    for i in range(len(labels)):
        for j in range(i):
            together = [groups[i] == groups[j] for groups in lists]
            hits += all(together)
            misses += together[0] != together[1]
    by_hand = 200 * hits / (2 * hits + misses) if hits + misses else 100
    assert pairwise_f1(labels, clusters) == pytest.approx(by_hand)
    (_, wrong), (missed, right) = pair_confusion_matrix(labels, clusters)
    if right:
        assert pairwise_f1(labels, clusters) == pytest.approx(
            200 * right / (2 * right + wrong + missed)
        )


@pytest.mark.parametrize("seed", range(20))
def test_equal_partitions_are_at_100_exactly(seed):
    labels = groups(1000, 50, seed)
    names = torch.randperm(148, generator=torch.Generator().manual_seed(seed))
    assert nmi(labels, names[labels]) == 100
    assert pairwise_f1(labels, names[labels]) == 100


def test_pairs_are_counted_beyond_32_bits():
    halves = torch.arange(200_000) // 100_000
    whole, half = 200_000 * 199_999 // 2, 100_000 * 99_999  # pairs
    f1 = pairwise_f1(torch.zeros(200_000, dtype=torch.uint8), halves)
    assert f1 == pytest.approx(200 * half / (whole + half))


def test_voc_ap11_by_hand():
    # By score: present, absent, present, left out, absent, present, absent.
    # Recall 1/3 at precision 1, 2/3 at 2/3, 1 at 3/5: 4 recalls get 1, 3 get 2/3, 4 get 3/5.
    scores = torch.tensor([0.3, 0.9, 0.7, 0.6, 0.5, 0.4, 0.8])
    targets = torch.tensor([0, 1, 1, -1, 0, 1, 0])
    one = 100 * (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11
    assert voc_ap11(scores, targets) == pytest.approx(one)
    assert voc_ap11(scores.double(), targets.float()) == pytest.approx(one)
    # Present at the ranks 1, 3 and 7 of 7 when turned around, without the one left out.
    other = 100 * (4 * 1 / 2 + 3 * 1 / 2 + 4 * 1 / 2) / 11
    assert voc_ap11(-scores, targets) == pytest.approx(other)
    both = torch.stack([scores, -scores], 1), torch.stack([targets, targets], 1)
    assert voc_ap11(*both) == pytest.approx((one + other) / 2)


def test_voc_ap11_takes_a_tie_as_one_and_3_of_10_as_recall_03():
    targets = torch.tensor([1, 0, 0, 1])
    for order in (torch.arange(4), torch.tensor([1, 2, 0, 3])):
        assert voc_ap11(torch.zeros(4), targets[order]) == 50
    # 3 of 10 first, then 7 absent, then 7 present: recalls 0 to 0.3 at 1, the rest at 10/17.
    targets = torch.tensor([1] * 3 + [0] * 7 + [1] * 7)
    expected = 100 * (4 * 1 + 7 * 10 / 17) / 11
    assert voc_ap11(torch.arange(17.0).flip(0), targets) == pytest.approx(expected)


def kit(scores, targets):
    """The development kit's loop, recalls in tenths: fractions would round 3/10 below 0.3."""
    order = sorted((i for i in range(len(scores)) if targets[i] >= 0), key=lambda i: -scores[i])
    true = np.cumsum([targets[i] == 1 for i in order])
    precision = true / np.arange(1, len(order) + 1)
    return 100 * np.mean([precision[10 * true >= t * true[-1]].max() for t in range(11)])


def test_voc_ap11_is_the_kits_loop():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300, 5, generator=generator)
    targets = torch.randint(-1, 2, (300, 5), generator=generator)
    expected = [kit(scores[:, c].tolist(), targets[:, c].tolist()) for c in range(5)]
    assert [voc_ap11(scores[:, c], targets[:, c]) for c in range(5)] == pytest.approx(expected)
    assert voc_ap11(scores, targets) == pytest.approx(np.mean(expected))


def test_mean_per_class_by_hand():
    labels = torch.tensor([0] * 8 + [1] * 2 + [5])
    predictions = torch.tensor([0] * 8 + [1, 0] + [9])
    assert mean_per_class_accuracy(predictions, labels) == pytest.approx(100 * (1 + 0.5 + 0) / 3)
    labels, predictions = torch.arange(90) % 7 % 3, torch.arange(90) % 5 % 3
    expected = 100 * balanced_accuracy_score(labels, predictions)
    for ints in (labels, labels.byte()):
        assert mean_per_class_accuracy(predictions, ints, classes=3) == pytest.approx(expected)


def test_a_class_without_an_image_is_refused_when_classes_are_given():
    labels = torch.tensor([0, 2])
    with pytest.raises(ValueError, match="each of 3 classes, but no label is 1"):
        mean_per_class_accuracy(labels, labels, classes=3)
    with pytest.raises(ValueError, match="each of 2 classes, but no label is 1"):
        mean_per_class_accuracy(labels, labels, classes=2)
    with pytest.raises(ValueError, match="each of 1 classes, but a label is 2"):
        mean_per_class_accuracy(labels, labels, classes=1)


Z, Y = torch.eye(4), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("z", "labels", "says"),
    [
        (torch.ones(1, 3), torch.tensor([0]), "no two of the 1 labels are alike"),
        (Z, torch.arange(4), "no two of the 4 labels are alike"),
        (Z * torch.tensor([1, 1, 0, 0]), Y, "2 embeddings hold only zeros, the first is row 2"),
        (Z.index_fill(0, Y[1:3], math.nan), Y, "2 embeddings hold NaN or infinity, .* row 0"),
        (Z.index_fill(0, Y[2:], math.inf), Y, "1 embeddings hold NaN or infinity, .* row 1"),
        (Z, Y - 1, "labels must be at least 0, but one is -1"),
        (Z, Y.float(), r"labels must be \(N,\) integers, N at least 1, not float32 \(4,\)"),
        (Z, Y.bool(), "not bool"),
        (Z, Y[:, None], r"not int64 \(4, 1\)"),
        (Z, Y[:3], "a label a row, not 3 for 4 rows"),
        (Z[0], Y, r"must be \(N, D\), not \(4,\)"),
        (Z.long(), Y, "floating-point"),
        (Z[:0], Y[:0], "N at least 1"),
    ],
)
def test_search_metrics_refuse(z, labels, says):
    for score in (map_at_r, lambda z, labels: recall_at_k(z, labels, [1])):
        with pytest.raises(ValueError, match=says) as error:
            score(z, labels)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("ks", [(), (0,), (1, 4), (1.0,)])
def test_recall_refuses_a_k_out_of_range(ks):
    with pytest.raises(ValueError, match="from 1 to the 3 others there are, not"):
        recall_at_k(Z, Y, ks)


@pytest.mark.parametrize(
    ("queries", "says"),
    [
        ([1, 1, 1, 1], "all of the 4 images are queries: a gallery too"),
        ([0, 0, 0, 0], "none of the 4 images are queries"),
        ([1, 1, 0], r"queries must be bool \(4,\), one a row, not bool \(3,\)"),
        ([1, 1, 0, 0], "no label of the 2 queries is in the gallery"),
    ],
)
def test_search_metrics_refuse_queries(queries, says):
    queries = torch.tensor(queries).bool()
    for score in (map_at_r, lambda z, labels, **given: recall_at_k(z, labels, [1], **given)):
        with pytest.raises(ValueError, match=says):
            score(Z, Y, queries=queries)
        with pytest.raises(ValueError, match=r"not int64 \(4,\)"):
            score(Z, Y, queries=Y)
    queries = torch.tensor([True, False, True, False])
    with pytest.raises(ValueError, match="from 1 to the 2 gallery images there are, not"):
        recall_at_k(Z, Y, [3], queries=queries)


@pytest.mark.parametrize("score", [nmi, pairwise_f1, mean_per_class_accuracy])
def test_metrics_of_two_lists_refuse(score):
    for other, says in (
        (Y[:3], "of one length, not 4 and 3|of one length, not 3 and 4"),
        (Y - 1, "at least 0, but one is -1"),
        (Y.double(), "float64"),
        ([0, 0, 1, 1], "must be a tensor, not list"),
    ):
        for pair in ((Y, other), (other, Y)):
            with pytest.raises(ValueError, match=says):
                score(*pair)
    with pytest.raises(ValueError, match="N at least 1"):
        score(Y[:0], Y[:0])


@pytest.mark.parametrize(
    ("scores", "targets", "says"),
    [
        (torch.zeros(4), torch.tensor([0, 1, 2, 2]), r"1, 0 or -1 \(left out\), not 2"),
        (torch.zeros(4), torch.tensor([0, 0, -1, 0]), "none has class 0"),
        (torch.zeros(1, 2), torch.tensor([[1, 0]]), "none has class 1"),
        (torch.zeros(4), Y[:3], r"of one shape.*not \(4,\) and \(3,\)"),
        (torch.zeros(0), Y[:0], "of one shape"),
        (Y, Y, "floating-point dtype, not torch.int64"),
        (torch.tensor([0.0, 1.0, math.nan, 2.0]), Y, "must not be NaN, but 1 are"),
    ],
)
def test_voc_ap11_refuses(scores, targets, says):
    with pytest.raises(ValueError, match=says):
        voc_ap11(scores, targets)
