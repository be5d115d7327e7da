"""How a labelled batch of embeddings falls into clusters, and how far its classes lie apart."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslkit.embeddings import unit


def clusters(z: Tensor, k: int, *, rounds: int = 20) -> Tensor:
    """k-means of (M, d) by so many rounds of Lloyd's; (M,) cluster numbers.

    It begins with k of the rows, the same at each call. A cluster that runs empty stays where it
    is.

    >>> clusters(torch.tensor([[0.0], [9.0], [0.1], [9.1]]), 2).unique(return_counts=True)[1]
    tensor([2, 2])
    """
    generator = torch.Generator().manual_seed(0)
    centres = z[torch.randperm(len(z), generator=generator)[:k].to(z.device)]
    for _ in range(rounds):
        own = F.one_hot(torch.cdist(z, centres).argmin(1), len(centres)).to(z.dtype)  # (M, k)
        sizes = own.sum(0)[:, None]
        centres = torch.where(sizes > 0, own.T @ z / sizes.clamp_min(1), centres)
    return torch.cdist(z, centres).argmin(1)


def mutual_information(labels: Tensor, numbers: Tensor) -> Tensor:
    """Of two partitions (M,), normalised by the mean of their entropies; a scalar in [0, 1].

    1 where both have one part.

    >>> mutual_information(torch.tensor([0, 0, 1, 1]), torch.tensor([3, 3, 1, 1]))
    tensor(1.)
    """
    first, second = (F.one_hot(x.unique(return_inverse=True)[1]).float() for x in (labels, numbers))
    joint = first.T @ second / len(labels)
    rows, columns, both = (torch.special.entr(p).sum() for p in (joint.sum(1), joint.sum(0), joint))
    total = rows + columns
    shared = ((total - both) / total.clamp_min(1e-12) * 2).clamp(0, 1)
    return torch.where(total > 1e-6, shared, torch.ones_like(shared))


def class_distances(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine distance of two rows of a class, and of the centres of two classes.

    Args:
        z: (M, d), of length 1. labels: (M,), two classes, and two rows of each, at least.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> class_distances(z, torch.tensor([0, 0, 1, 1]))
    (tensor(0.), tensor(1.))
    """
    own = F.one_hot(labels.unique(return_inverse=True)[1]).to(z.dtype)  # (M, C)
    itself = torch.eye(len(z), device=z.device)
    pairs = own @ own.T - itself
    within = 1 - (pairs * (z @ z.T)).sum() / pairs.sum()
    centres = unit(own.T @ z)
    similar = centres @ centres.T
    n = len(centres)
    between = 1 - (similar.sum() - similar.diagonal().sum()) / (n * (n - 1))
    return within, between
