"""All pairs of a batch, as masks or as indices."""

import torch
from torch import Tensor

from sslkit.embeddings import check_labels
from sslkit.miners.tuples import Pairs


def pair_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which two rows are a positive pair, and which a negative one, each (N, N) and boolean.

    A row is no pair with itself.

    >>> positive, negative = pair_masks(torch.tensor([7, 7, 3]))
    >>> positive.int()
    tensor([[0, 1, 0],
            [1, 0, 0],
            [0, 0, 0]], dtype=torch.int32)
    """
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return same & ~itself, ~same


@torch.no_grad()
def all_pairs(embeddings: Tensor, labels: Tensor) -> Pairs:
    """All N (N - 1) / 2 unordered pairs, first below second.

    Args:
        embeddings: (N, D); only N matters.
        labels: integers, (N,).

    Raises:
        ValueError: labels that are not N integers.

    >>> all_pairs(torch.zeros(3, 2), torch.tensor([7, 7, 3])).same
    tensor([ True, False, False])
    """
    n = len(embeddings)
    check_labels(labels, n)
    first, second = torch.triu_indices(n, n, offset=1, device=labels.device)
    return Pairs(first, second, labels[first] == labels[second])
