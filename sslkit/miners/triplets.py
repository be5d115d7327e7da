"""Miners that pick a triplet by rank of distance: hard, semi-hard and easy positives.

They measure between embeddings of length 1, and need memory for (N, N) numbers.
"""

import math

import torch
from torch import Tensor

from sslkit.embeddings import check_above, check_labels, checked, squared_distances, unit
from sslkit.miners.pairs import pair_masks
from sslkit.miners.tuples import Triplets


@torch.no_grad()
def hard(embeddings: Tensor, labels: Tensor) -> Triplets:
    """Batch-hard triplets (Hermans et al. 2017, arXiv:1703.07737).

    Each anchor with its farthest positive and its nearest negative, in Euclidean distance of the
    embeddings at length 1. An anchor without a positive or without a negative is left out.

    Args:
        embeddings: (N, D), normalised here.
        labels: integers, (N,).

    Raises:
        ValueError: embeddings that are not floating-point (N, D), or labels that are not N
            integers.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> hard(z, torch.tensor([7, 7, 3])).negative
    tensor([2, 2])
    """
    square, positive, negative = _measured(embeddings, labels)
    if not len(square):
        return nothing(labels)
    farthest = square.masked_fill(~positive, -math.inf).argmax(1)
    nearest = square.masked_fill(~negative, math.inf).argmin(1)
    anchor = (positive.any(1) & negative.any(1)).nonzero().squeeze(1)
    return Triplets(anchor, farthest[anchor], nearest[anchor])


@torch.no_grad()
def semi_hard(embeddings: Tensor, labels: Tensor, *, margin: float = 0.2) -> Triplets:
    """Semi-hard triplets (Schroff et al. 2015, arXiv:1503.03832).

    Each anchor and positive with the nearest of the negatives that are farther from the anchor
    than the positive is, yet by less than the margin, in squared Euclidean distance of the
    embeddings at length 1. A pair without such a negative is left out.

    Args:
        embeddings: (N, D), normalised here.
        labels: integers, (N,).
        margin: above 0; the margin of the loss that follows.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N integers,
            or a margin not above 0.

    >>> z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> semi_hard(z, torch.tensor([7, 7, 3]), margin=1.0)  # d^2: 0.4 and 0.8
    Triplets(anchor=tensor([0]), positive=tensor([1]), negative=tensor([2]))
    """
    check_above(0, margin=margin)
    square, positive, negative = _measured(embeddings, labels)
    found, farther = _nearest_beyond(square, negative, square)
    anchor, other = (positive & (found < square + margin)).nonzero(as_tuple=True)
    return Triplets(anchor, other, farther[anchor, other])


@torch.no_grad()
def easy_positive(embeddings: Tensor, labels: Tensor, *, semi_hard: bool = False) -> Triplets:
    """Easy-positive triplets (Xuan et al. 2020, arXiv:1904.04370).

    Each anchor with its nearest positive and its nearest negative (the paper's EPHN) or, where
    ``semi_hard``, the nearest of the negatives that are farther than that positive (EPSHN), in
    Euclidean distance of the embeddings at length 1. An anchor that lacks either is left out.

    Args:
        embeddings: (N, D), normalised here.
        labels: integers, (N,).
        semi_hard: pass over the negatives that are as near as the positive, or nearer.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), or labels that are not N
            integers.

    >>> z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.9, 0.1]])
    >>> easy_positive(z, torch.tensor([7, 7, 7, 3])).positive
    tensor([1, 0, 1])
    """
    square, positive, negative = _measured(embeddings, labels)
    if not len(square):
        return nothing(labels)
    nearest, other = square.masked_fill(~positive, math.inf).min(1, keepdim=True)
    beyond = nearest if semi_hard else torch.full_like(nearest, -math.inf)
    found, farther = _nearest_beyond(square, negative, beyond)
    anchor = (positive.any(1) & (found < math.inf).squeeze(1)).nonzero().squeeze(1)
    return Triplets(anchor, other[anchor, 0], farther[anchor, 0])


def nothing(labels: Tensor) -> Triplets:
    """No triplet, of a batch without rows."""
    return Triplets(*(labels.new_empty(0, dtype=torch.long) for _ in range(3)))


def _measured(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances at length 1, and the positive and the negative pairs."""
    (embeddings,) = checked(embeddings=embeddings)
    check_labels(labels, len(embeddings))
    return squared_distances(unit(embeddings)), *pair_masks(labels)


def _nearest_beyond(square: Tensor, negative: Tensor, beyond: Tensor) -> tuple[Tensor, Tensor]:
    """The distance and the index of the nearest negative farther than each of (N, M) distances.

    Where there is none, the distance is infinite.
    """
    ascending, order = square.masked_fill(~negative, math.inf).sort(1)
    rank = torch.searchsorted(ascending, beyond, right=True).clamp_max(len(square) - 1)
    return ascending.gather(1, rank), order.gather(1, rank)
