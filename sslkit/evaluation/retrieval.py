"""Retrieval and clustering of classes: the tables of metric learning (Song et al. 2016)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sslkit.evaluation.features import Features
from sslkit.evaluation.metrics import map_at_r, nmi, pairwise_f1, recall_at_k, unit_vectors


def retrieval(
    test: Features,
    *,
    ks: Sequence[int] = (1, 2, 4, 8),
    seed: int = 0,
    queries: Tensor | None = None,
) -> dict[str, float]:
    """Do the features of one class lie together? Nothing is trained.

    Each image is searched among the others by cosine; then unit vectors are clustered by k-means,
    into as many clusters as there are classes. Comparable with the papers on classes that were
    not trained on: of CUB-200-2011 and Cars196 the second half of the classes.

    Args:
        test: its labels have 2 classes or more, and one of them twice. ks: each from 1 to N - 1,
            or to the size of the gallery. seed: of k-means, 0 or above.
        queries: bool (N,): those images are searched for among the others, the gallery, as In-Shop
            has it (Liu et al. 2016, CVPR); by default each among all others. Clusters are of all.

    Returns:
        "recall@<k>" for each k, "map@r", "nmi" and "f1", in percent.

    Raises:
        ValueError: too few classes or images, a label below 0, a feature that is not finite or
            of zero norm, a k or a seed out of its range, or no gallery to search.

    >>> test = Features(torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1]))
    >>> retrieval(test, ks=(1,))
    {'recall@1': 100.0, 'map@r': 100.0, 'nmi': 100.0, 'f1': 100.0}
    """
    features, labels = test
    recall = recall_at_k(features, labels, ks, queries=queries)
    classes = len(labels.unique())
    if classes < 2:
        raise ValueError("retrieval needs 2 classes or more, but all labels are one")
    clusters = kmeans(unit_vectors(features), classes, seed=seed)
    return {
        **{f"recall@{k}": score for k, score in recall.items()},
        "map@r": map_at_r(features, labels, queries=queries),
        "nmi": nmi(labels, clusters),
        "f1": pairwise_f1(labels, clusters),
    }


def kmeans(points: Tensor, clusters: int, *, seed: int = 0) -> Tensor:
    """The cluster of each of (N, D) points, int64 (N,): the best of 3 starts, by faiss.

    A start is greedy k-means++ (Arthur and Vassilvitskii 2007), as in scikit-learn: from faiss's
    own, random points, 8 classes that lie far apart came out at an NMI of 88. All points are used
    (faiss would draw 256 a cluster). One seed gives one result on one machine.

    Raises:
        ValueError: clusters not from 1 to N, or a seed below 0.

    >>> kmeans(torch.tensor([[0.0], [9.0], [0.1], [9.1]]), 2).unique(return_counts=True)[1]
    tensor([2, 2])
    """
    import faiss

    if not 1 <= clusters <= len(points):
        raise ValueError(f"clusters must be from 1 to the {len(points)} points, not {clusters}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, not {seed}")
    points = points.detach().cpu().float().contiguous()
    generator = torch.Generator().manual_seed(seed)
    best, least = torch.zeros(len(points), dtype=torch.int64), math.inf
    for _ in range(3):
        search = faiss.Kmeans(
            points.shape[1],
            clusters,
            niter=50,
            min_points_per_centroid=1,  # or it warns on the console
            max_points_per_centroid=len(points),
        )
        search.train(points.numpy(), init_centroids=_start(points, clusters, generator).numpy())
        distances, rows = search.assign(points.numpy())
        if (cost := distances.sum(dtype="float64")) < least:
            best, least = torch.from_numpy(rows), cost
    return best


def _start(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Centres out of the points, far from each other: of a few drawn, the best one, in turn."""
    draws = 2 + int(math.log(clusters))
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    nearest = (points - points[chosen]).square().sum(1)  # (N,), to the nearest centre
    lengths = points.square().sum(1, keepdim=True)
    ones = torch.ones_like(lengths)
    right = torch.cat([points, ones, lengths], 1)  # as in torch.cdist, which makes it each time
    left = torch.cat([-2 * points, lengths, ones], 1)
    for _ in range(clusters - 1):
        # Never all zeros, for points that are all one.
        drawn = nearest.clamp_min(1e-12).multinomial(draws, replacement=True, generator=generator)
        square = (left[drawn] @ right.T).clamp_min_(0).sqrt_().square_()  # to its bits
        then = square.minimum(nearest)  # (draws, N)
        row = int(then.sum(1).argmin())
        chosen.append(int(drawn[row]))
        nearest = then[row]
    return points[chosen]
