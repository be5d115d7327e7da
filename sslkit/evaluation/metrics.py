"""What transfer and retrieval are scored by, on plain tensors of any device; all in percent.

Labels, clusters and predictions are (N,) integers of at least 0. Each function raises a ValueError
for what it cannot take or has no answer for.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sslkit.embeddings import check_tensor, checked

_BLOCK = 2**20  # neighbours held at a time, whatever the number of queries
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def recall_at_k(
    embeddings: Tensor, labels: Tensor, ks: Sequence[int], *, queries: Tensor | None = None
) -> dict[int, float]:
    """Queries with their label among their k nearest others by cosine (Song et al. 2016).

    One search serves every k. A query is no neighbour of its own, by its row, so that duplicates
    of it are. Queries whose label no other has are left out, as in pytorch-metric-learning: no
    search could find one. Of equally near ones, which come first is left to faiss.

    Args:
        embeddings: floating-point (N, D), finite, no row of zeros. labels: (N,), two alike at
            least. ks: each from 1 to N - 1, or to the size of the gallery.
        queries: bool (N,): those rows are searched for among the others, the gallery, and not
            among each other (Liu et al. 2016, In-Shop); by default each row among all others.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.3]])
    >>> labels = torch.tensor([0, 1, 0, 1])
    >>> recall_at_k(z, labels, (1, 3))
    {1: 25.0, 3: 100.0}
    >>> recall_at_k(z, labels, (1, 2), queries=torch.tensor([True, True, False, False]))
    {1: 50.0, 2: 100.0}
    """
    units, labels, others, among = _searchable(embeddings, labels, queries)
    most, what = (len(labels) - 1, "others") if queries is None else (len(among), "gallery images")
    if not ks or not all(isinstance(k, int) and 1 <= k <= most for k in ks):
        raise ValueError(f"each k must be from 1 to the {most} {what} there are, not {ks}")
    hits = torch.zeros(max(ks), dtype=torch.long)  # by the place of the first that has the label
    for block, rows in _nearest_others(units, others.nonzero()[:, 0], among, max(ks)):
        same = labels[rows] == labels[block, None]  # (B, k)
        hits += torch.bincount(same.int().argmax(1)[same.any(1)], minlength=max(ks))
    return {k: 100 * int(hits[:k].sum()) / int(others.count_nonzero()) for k in ks}


def map_at_r(embeddings: Tensor, labels: Tensor, *, queries: Tensor | None = None) -> float:
    """Mean average precision at R (Musgrave et al. 2020, arXiv:2003.08505).

    R is the number of others of the query's label, or of those in the gallery. Of the R nearest
    by cosine, the precision at the place of each that has the label is summed and divided by R.
    Arguments, and the queries left out, as of :func:`recall_at_k`.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.3]])
    >>> map_at_r(z, torch.tensor([0, 1, 0, 1]))
    25.0
    """
    units, labels, others, among = _searchable(embeddings, labels, queries)
    total, place = 0.0, torch.arange(1, int(others.max()) + 1)
    for block, rows in _nearest_others(units, others.nonzero()[:, 0], among, len(place)):
        r = others[block, None]  # (B, 1)
        same = (labels[rows] == labels[block, None]) & (place <= r)  # (B, max R)
        precision = same.cumsum(1).double() / place
        total += float(((precision * same).sum(1) / r[:, 0]).sum())
    return 100 * total / int(others.count_nonzero())


def nmi(labels: Tensor, clusters: Tensor) -> float:
    """Mutual information over the mean of the two entropies (arithmetic, scikit-learn's default).

    Two partitions of one part each agree: 100, as in scikit-learn.

    >>> nmi(torch.tensor([0, 0, 1, 1]), torch.tensor([3, 3, 1, 1]))
    100.0
    """
    label, cluster, both = (_entropy(counts) for counts in _contingency(labels, clusters))
    if label + cluster == 0:
        return 100.0
    return 200 * min(max((label + cluster - both) / (label + cluster), 0.0), 0.5)


def pairwise_f1(labels: Tensor, clusters: Tensor) -> float:
    """F1 of the pairs that share a cluster against those that share a label (Song et al. 2016).

    Where no two share either, the partitions agree: 100.

    >>> pairwise_f1(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]))
    40.0
    """
    label, cluster, both = (
        int((counts * (counts - 1)).sum()) // 2 for counts in _contingency(labels, clusters)
    )
    return 200 * both / (label + cluster) if label + cluster else 100.0


def voc_ap11(scores: Tensor, targets: Tensor) -> float:
    """Average precision at the recalls 0, 0.1, ..., 1, interpolated (Everingham et al. 2010).

    At each recall stands the best precision at that recall or above. Images of one score are
    ranked as one, as in scikit-learn, so that the order of rows does not matter.

    Args:
        scores: floating-point (N,), higher for present, without NaN; or (N, C), for the mean over
            C classes. targets: of that shape; 1 for present, 0 for absent, -1 for left out: only
            difficult objects. (VOC's own files say 1, -1, 0 for these.) Every class needs a 1.

    >>> voc_ap11(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, -1]))
    50.0
    """
    check_tensor("scores", scores)
    check_tensor("targets", targets)
    if scores.ndim not in (1, 2) or scores.shape != targets.shape or not scores.numel():
        shapes = f"{tuple(scores.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"scores and targets must be of one shape, (N,) or (N, C), not {shapes}")
    if not scores.is_floating_point():
        raise ValueError(f"scores must be of a floating-point dtype, not {scores.dtype}")
    if scores.isnan().any():
        raise ValueError(f"scores must not be NaN, but {int(scores.isnan().sum())} are")
    scores, targets = scores.detach().cpu(), targets.cpu().double()
    if other := set(targets.unique().tolist()) - {-1.0, 0.0, 1.0}:
        raise ValueError(f"targets must be 1, 0 or -1 (left out), not {min(other):g}")
    columns = targets.reshape(len(targets), -1).T  # (C, N)
    if empty := [c for c, column in enumerate(columns) if not (column == 1).any()]:
        raise ValueError(f"voc_ap11 needs an image of every class; none has class {empty[0]}")
    pairs = zip(scores.reshape(len(scores), -1).T, columns, strict=True)
    return 100 * sum(_ap11(s[t >= 0], t[t >= 0] == 1) for s, t in pairs) / len(columns)


def mean_per_class_accuracy(
    predictions: Tensor, labels: Tensor, classes: int | None = None
) -> float:
    """The accuracy within each class, averaged over classes (SimCLR, Chen et al. 2020, B.8).

    Args:
        predictions, labels: (N,). classes: their number, each of which then needs an image, as in
            the paper's sets; None for the classes that ``labels`` has, whatever is predicted.

    >>> mean_per_class_accuracy(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1]))
    50.0
    """
    predictions, labels = _whole(predictions=predictions, labels=labels)
    there, row, counts = labels.unique(return_inverse=True, return_counts=True)
    if classes is not None and there.tolist() != list(range(classes)):
        odd = min(set(there.tolist()) ^ set(range(classes)))
        says = "no label" if odd < classes else "a label"
        raise ValueError(f"labels must have each of {classes} classes, but {says} is {odd}")
    correct = row.bincount((predictions == labels).double())
    return 100 * float((correct / counts).mean())


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Rows whose highest score is their label's.

    Args:
        scores: (N, C). labels: (N,).

    >>> accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    50.0
    """
    return 100 * int((scores.argmax(1) == labels).sum()) / len(labels)


def unit_vectors(embeddings: Tensor) -> Tensor:
    """Rows at length 1, float32 (N, D) on the CPU; ValueError for one without a direction."""
    (embeddings,) = checked(embeddings=embeddings)
    embeddings = embeddings.detach().cpu()
    scale = embeddings.abs().amax(1, keepdim=True)  # or squares overflow and underflow
    for bad, what in ((~scale.isfinite(), "NaN or infinity"), (scale == 0, "only zeros")):
        if bad.any():
            first = int(bad[:, 0].nonzero()[0])
            raise ValueError(f"{int(bad.sum())} embeddings hold {what}, the first is row {first}")
    return F.normalize(embeddings / scale).float().contiguous()


def searched_for(labels: Tensor, queries: Tensor | None = None) -> Tensor:
    """Which rows :func:`recall_at_k` searches for: those of which another can be found, bool (N,).

    >>> searched_for(torch.tensor([0, 1, 0]))
    tensor([ True, False,  True])
    >>> searched_for(torch.tensor([0, 1, 0]), torch.tensor([True, True, False]))
    tensor([ True, False, False])
    """
    return _others(labels, queries) > 0


def _others(labels: Tensor, queries: Tensor | None) -> Tensor:
    """How many rows may be found for each, (N,); 0 for one that is no query."""
    _, row, counts = labels.unique(return_inverse=True, return_counts=True)
    if queries is None:
        return counts[row] - 1
    return row[~queries].bincount(minlength=len(counts))[row] * queries


def _searchable(
    embeddings: Tensor, labels: Tensor, queries: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit vectors, labels, how many may be found for each row (N,), the rows searched among."""
    (labels,) = _whole(labels=labels)
    units = unit_vectors(embeddings)
    if len(units) != len(labels):
        raise ValueError(f"there must be a label a row, not {len(labels)} for {len(units)} rows")
    if queries is None:
        others = _others(labels, None)
        if not others.any():
            n = len(labels)
            raise ValueError(f"no two of the {n} labels are alike: there is nothing to find")
        return units, labels, others, torch.arange(len(labels))
    queries = _marked(queries, len(labels))
    others = _others(labels, queries)
    if not others.any():
        n = int(queries.sum())
        raise ValueError(f"no label of the {n} queries is in the gallery: there is nothing to find")
    return units, labels, others, (~queries).nonzero()[:, 0]


def _marked(queries: Tensor, n: int) -> Tensor:
    """On the CPU; ValueError unless bool (n,), with a query and one that is none."""
    check_tensor("queries", queries)
    if queries.dtype != torch.bool or queries.shape != (n,):
        kind = str(queries.dtype).removeprefix("torch.")
        raise ValueError(f"queries must be bool ({n},), one a row, not {kind} {(*queries.shape,)}")
    if queries.all() or not queries.any():
        which = "all" if queries.all() else "none"
        raise ValueError(f"{which} of the {n} images are queries: a gallery too is needed")
    return queries.cpu()


def _nearest_others(
    units: Tensor, queries: Tensor, among: Tensor, k: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of queries (B,) with the rows of their k nearest others (B, k): exact, by faiss.

    A gallery of k has no further row: faiss then ends with -1, which is the one dropped.
    """
    import faiss

    index = faiss.IndexFlatIP(units.shape[1])
    index.add(units[among].numpy())
    for block in queries.split(max(1, _BLOCK // (k + 1))):
        rows = among[torch.from_numpy(index.search(units[block].numpy(), k + 1)[1])]
        others = rows != block[:, None]
        others[others.all(1), -1] = False  # behind its duplicates a query may not be found
        yield block, rows[others].view(len(block), k)


def _contingency(labels: Tensor, clusters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many have each label, each cluster, and each pair of them that occurs; int64."""
    labels, clusters = _whole(labels=labels, clusters=clusters)
    _, row, label_counts = labels.unique(return_inverse=True, return_counts=True)
    _, column, cluster_counts = clusters.unique(return_inverse=True, return_counts=True)
    _, both = (row * len(cluster_counts) + column).unique(return_counts=True)
    return label_counts, cluster_counts, both


def _entropy(counts: Tensor) -> float:
    p = counts.sort().values.double() / counts.sum()  # in order: equal partitions, equal bits
    return float((p * p.reciprocal().log()).sum())


def _ap11(scores: Tensor, present: Tensor) -> float:
    scores, order = scores.sort(descending=True)
    last = torch.cat([scores[1:] != scores[:-1], torch.tensor([True])])  # of each score
    found = present[order].cumsum(0)[last]
    precision = found.double() / torch.arange(1, len(scores) + 1)[last]
    # In whole numbers: 3 of 10 is a recall of 0.3.
    best = [precision[10 * found >= tenth * found[-1]].max() for tenth in range(11)]
    return float(sum(best)) / 11


def _whole(**given: Tensor) -> list[Tensor]:
    """As int64 on the CPU; ValueError unless of one shape (N,), N at least 1, and none below 0."""
    for name, values in given.items():
        check_tensor(name, values)
        if values.ndim != 1 or not len(values) or values.dtype not in _WHOLE:
            dtype = str(values.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name} must be (N,) integers, N at least 1, not {dtype} {tuple(values.shape)}"
            )
        if (least := int(values.min())) < 0:
            raise ValueError(f"{name} must be at least 0, but one is {least}")
    if len({len(values) for values in given.values()}) > 1:
        lengths = " and ".join(str(len(values)) for values in given.values())
        raise ValueError(f"{' and '.join(given)} must be of one length, not {lengths}")
    return [values.cpu().long() for values in given.values()]


def _mean_per_class(scores: Tensor, labels: Tensor) -> float:
    return mean_per_class_accuracy(scores.argmax(1), labels)


# What a data set is judged by, of scores (N, C) and labels (N,), for map11 (N, C).
METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "accuracy": accuracy,
    "mean_per_class": _mean_per_class,
    "map11": voc_ap11,
}
