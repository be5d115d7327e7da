"""The facility location loss (Oh Song et al. 2017, arXiv:1612.01213)."""

import math

import torch
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_above, check_at_least, check_labels, checked, distances, unit


def facility_location(
    embeddings: Tensor, labels: Tensor, *, margin: float = 1.0, refinements: int = 5
) -> Tensor:
    """The facility location loss (Oh Song et al., Deep metric learning via facility location,
    CVPR 2017).

    Clustering by the labels shall score higher than every other clustering, by a margin that grows
    with how much the two differ: max(0, max over S of (F(S) + margin * (1 - NMI(S))) - F*). S is
    as many rows as there are labels, each the medoid of the rows nearest to it; F(S) is minus the
    sum of the distances of all rows to their medoid, and NMI(S) the mutual information of
    clusters and labels over the geometric mean of their entropies; F* is as F with the best
    medoid of each label. Distances are Euclidean, between embeddings at length 1.

    As in the paper the maximum is searched, not found: medoids are added one by one, each the best
    one, and then exchanged within their clusters. To the gradient the medoids found are constant.
    The loss is a sum over rows, not a mean, computed in float32 (float64 for float64 input), under
    autocast too, in memory O(N^2). The search waits for the device.

    Args:
        embeddings: (N, D), normalised here.
        labels: integers, (N,).
        margin: the paper's gamma, above 0.
        refinements: how often at most to go through the clusters, exchanging medoids.

    Returns:
        The loss, a scalar of at least 0; 0 if all rows have one label. An embedding that is
        not finite makes it NaN.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N integers,
            a margin not above 0, or negative refinements.

    >>> labels = torch.tensor([7, 7, 3, 3])
    >>> round(facility_location(torch.eye(2)[[0, 0, 1, 1]], labels).item(), 4)
    0.0
    >>> z = torch.eye(2)[[0, 1, 0, 1]]
    >>> round(facility_location(z, labels).item(), 4)  # 0 + (1 - 0) + 2 sqrt(2)
    3.8284
    """
    check_margin(margin, refinements)
    (embeddings,) = checked(embeddings=embeddings)
    n = len(embeddings)
    check_labels(labels, n)
    zero = 0 * embeddings.sum()
    if not n:
        return zero
    distance = distances(unit(embeddings))
    with torch.no_grad():
        same = labels[:, None] == labels
        groups = _representatives(labels)
        medoids = _medoids(distance, groups, margin, refinements)
        _, agreement = _evaluate(distance, groups, medoids[:-1], medoids[-1:])
        _, found = _nearest(distance, medoids)
        within = distance.masked_fill(~same, 0).sum(0)
        own = within.expand(n, n).masked_fill(~same, math.inf).argmin(1)
    gap = distance.gather(1, own[:, None]) - distance.gather(1, found[:, None])
    return (gap.sum() + margin * (1 - agreement.squeeze(0))).relu() + zero


def check_margin(margin: float, refinements: int) -> None:
    """Raise ValueError unless the margin is above 0 and refinements at least 0."""
    check_above(0, margin=margin)
    check_at_least(0, refinements=refinements)


def _medoids(distance: Tensor, labels: Tensor, margin: float, refinements: int) -> Tensor:
    """The medoids of the greatest F(S) + margin (1 - NMI(S)) that the search finds, (K,)."""
    n = len(labels)
    rows = torch.arange(n, device=labels.device)
    classes = int((labels == rows).sum())

    def best(others: Tensor, candidates: Tensor) -> Tensor:
        cost, agreement = _evaluate(distance, labels, others, candidates)
        return candidates[(margin * (1 - agreement) - cost).argmax()]

    medoids = rows[:0]
    for _ in range(classes):
        free = torch.ones_like(rows, dtype=torch.bool)
        free[medoids] = False
        medoids = torch.cat([medoids, best(medoids, rows[free])[None]])
    for _ in range(refinements):
        before = medoids.clone()
        for k in range(classes):
            members = rows[_nearest(distance, medoids)[1] == medoids[k]]
            if len(members) > 1:  # 0 where another medoid lies at the same point
                medoids[k] = best(torch.cat([medoids[:k], medoids[k + 1 :]]), members)
        if torch.equal(before, medoids):
            break
    return medoids


def _evaluate(
    distance: Tensor, labels: Tensor, medoids: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor]:
    """The sum of distances and the NMI with labels, for medoids and each candidate, both (M,)."""
    n = len(labels)
    nearest, medoid = _nearest(distance, medoids)
    to = distance[:, candidates]  # (N, M)
    moved = to < nearest[:, None]
    moves, stays = moved.to(distance.dtype), (~moved).to(distance.dtype)

    def counts(groups: Tensor, weights: Tensor) -> Tensor:
        return torch.zeros_like(weights).index_add(0, groups, weights)

    def part(counts: Tensor) -> Tensor:
        return torch.xlogy(counts, counts).sum(0) / n

    cells = _representatives(medoid * n + labels)
    joint = math.log(n) - part(counts(cells, stays)) - part(counts(labels, moves))
    clusters = math.log(n) - part(counts(medoid, stays)) - part(moves.sum(0, keepdim=True))
    classes = math.log(n) - part(counts(labels, torch.ones_like(moves[:, :1])))
    scale = (clusters.clamp_min(0) * classes.clamp_min(0)).sqrt()
    agreement = (clusters + classes - joint) / scale.masked_fill(scale < 1e-6, math.inf)
    alone = (clusters < 1e-6) & (classes < 1e-6)  # one cluster, one label
    return torch.minimum(to, nearest[:, None]).sum(0), agreement.masked_fill(alone, 1)


def _nearest(distance: Tensor, medoids: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of each row to its nearest medoid, and which that is, both (N,)."""
    if not len(medoids):
        return torch.full_like(distance[0], math.inf), torch.zeros_like(distance[0]).long()
    nearest, which = distance[:, medoids].min(1)
    return nearest, medoids[which]


def _representatives(groups: Tensor) -> Tensor:
    """For each row the first row of its group, (N,): a name below N, found without waiting."""
    return (groups[:, None] == groups).to(torch.uint8).argmax(1)


class FacilityLocationLoss(nn.Module):
    """The facility location loss as a module; see :func:`facility_location`.

    Args:
        margin: above 0.
        refinements: at least 0.
        gather: take the rows of all processes. The value and, averaged over processes as DDP
            does, the gradient are those of the whole batch in one process.

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> round(FacilityLocationLoss()(torch.eye(2)[labels], labels).item(), 4)
    0.0
    """

    def __init__(self, *, margin: float = 1.0, refinements: int = 5, gather: bool = True) -> None:
        super().__init__()
        check_margin(margin, refinements)
        self.margin = margin
        self.refinements = refinements
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, D) and (N,) to a scalar."""
        if self.gather:
            embeddings, labels = all_gather(embeddings), all_gather(labels)
        return facility_location(
            embeddings, labels, margin=self.margin, refinements=self.refinements
        )

    def extra_repr(self) -> str:
        return f"margin={self.margin}, refinements={self.refinements}, gather={self.gather}"
