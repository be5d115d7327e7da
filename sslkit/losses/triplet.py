"""The triplet loss (Schroff, Kalenichenko and Philbin 2015, arXiv:1503.03832)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_above, check_labels, checked, squared_distances, unit
from sslkit.losses.pairwise import check_one, check_tuples, mined
from sslkit.miners import Triplets
from sslkit.miners.chosen import name_of
from sslkit.miners.pairs import pair_masks


def triplet_margin(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin: float = 0.2,
    triplets: Triplets | None = None,
    normalize: bool = True,
) -> Tensor:
    """The triplet loss of FaceNet (Schroff et al. 2015).

    The mean over triplets of max(0, d(a, p) - d(a, n) + margin), with squared Euclidean distances
    d of the embeddings at length 1. With labels it is the mean over all triplets of the batch,
    those of loss 0 too, exactly, though they are not enumerated: time O(N^2 log N), memory O(N^2).
    It is computed in float32 (float64 for float64 input), under autocast too.

    Args:
        embeddings: (N, D).
        labels: integers, (N,): the loss is over all triplets.
        margin: above 0, in units of squared distance.
        triplets: instead of labels, the triplets to take.
        normalize: bring the embeddings to length 1 first.

    Returns:
        The loss, a scalar of at least 0; 0, with zero gradient, if there is no triplet. An
        embedding that is not finite makes it NaN.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N integers,
            both labels and triplets or neither, or a margin not above 0.

    >>> z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> labels = torch.tensor([7, 7, 3])
    >>> triplet_margin(z, labels, margin=0.5)  # (0.4 - 0.8 + 0.5 + 0.4 - 0.08 + 0.5) / 2
    tensor(0.4600)
    """
    check_above(0, margin=margin)
    check_one(labels=labels, triplets=triplets)
    (embeddings,) = checked(embeddings=embeddings)
    square = squared_distances(unit(embeddings) if normalize else embeddings)
    if triplets is None:
        assert labels is not None
        loss = _mean_over_all(square, labels, margin)
    else:
        check_tuples(Triplets, triplets)
        anchor, positive, negative = triplets
        terms = (square[anchor, positive] - square[anchor, negative] + margin).relu()
        loss = terms.sum() / max(len(anchor), 1)
    return loss + 0 * embeddings.sum()  # a row outside of all triplets may be NaN


def _mean_over_all(square: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The mean over all triplets, a sum of distances each times how often it is active.

    A triplet is active where d(a, n) < d(a, p) + margin. The negatives of an anchor in order of
    distance, those active with a positive are the first few, ``rank``; how many positives reach
    past a negative follows from how often each rank occurs.
    """
    check_labels(labels, len(square))
    positive, negative = pair_masks(labels)
    with torch.no_grad():
        ascending, order = square.masked_fill(~negative, math.inf).sort(1)
        rank = torch.searchsorted(ascending, square + margin).masked_fill(~positive, 0)
        reach = torch.zeros_like(rank).scatter_add(1, (rank - 1).clamp_min(0), rank.sign())
        passed = reach.flip(1).cumsum(1).flip(1)  # of the negatives in order
        active = rank - torch.empty_like(rank).scatter(1, order, passed)  # (N, N)
    total = (active * square).sum() + margin * rank.sum().to(square.dtype)
    return total / (positive.sum(1) * negative.sum(1)).sum().clamp_min(1)


class TripletMarginLoss(nn.Module):
    """The triplet loss as a module; see :func:`triplet_margin`.

    Args:
        margin: above 0.
        miner: from embeddings and labels to the triplets to take, such as
            :func:`sslkit.miners.semi_hard`; None for all. A miner's own options are set by
            ``functools.partial``, among them the margin of semi_hard. Over processes a random
            miner needs a generator of one seed on all, or each has a sample of its own.
        normalize: bring the embeddings to length 1 first. Miners always do.
        gather: take the rows of all processes. The value and, averaged over processes as DDP
            does, the gradient are those of the whole batch in one process.

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> TripletMarginLoss(margin=0.2)(torch.eye(2)[labels], labels)
    tensor(0.)
    """

    def __init__(
        self,
        *,
        margin: float = 0.2,
        miner: Callable[[Tensor, Tensor], Triplets] | None = None,
        normalize: bool = True,
        gather: bool = True,
    ) -> None:
        super().__init__()
        check_above(0, margin=margin)
        self.margin = margin
        self.miner = miner
        self.normalize = normalize
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, D) and (N,) to a scalar."""
        if self.gather:
            embeddings, labels = all_gather(embeddings), all_gather(labels)
        triplets = mined(self.miner, Triplets, embeddings, labels)
        return triplet_margin(
            embeddings,
            labels if triplets is None else None,
            margin=self.margin,
            triplets=triplets,
            normalize=self.normalize,
        )

    def extra_repr(self) -> str:
        return (
            f"margin={self.margin}, miner={name_of(self.miner)}, "
            f"normalize={self.normalize}, gather={self.gather}"
        )
