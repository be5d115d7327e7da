"""The images that features call nearest to some, and how they are drawn."""

import copy

import torch
from torch import Tensor

from sslkit.data import ArrayDataset, LabelledImages
from sslkit.evaluation import nearest

SIDE = 128  # pixels that files are drawn with, whatever the backbone sees of them


def closest(queries: Tensor, bank: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest rows of a bank by cosine, and how near, without the query's own row.

    Args:
        queries: (Q, D). bank: (N, D).
        own: int64 (Q,), the row of the bank that a query is; -1 for one that is none of them.
        k: at least 1; at most N - 1, or N where no query is of the bank.

    Returns:
        Rows, int64 (Q, k), nearest first, and cosines, float32 (Q, k).

    >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> closest(bank[:1], bank, torch.tensor([0]), 1)[0]
    tensor([[2]])
    """
    scores, index = nearest(queries, bank, min(k + 1, len(bank)))
    itself = index == own[:, None]
    kept = itself.long().argsort(dim=1, stable=True)[:, :k]  # itself last, where it is among them
    return index.gather(1, kept), scores.gather(1, kept)


def pictures_of(dataset: ArrayDataset | LabelledImages, rows: Tensor, side: int = SIDE) -> Tensor:
    """uint8 (M, C, H, W) of some rows of a data set, to be looked at; no other is read.

    >>> data = ArrayDataset(torch.arange(6, dtype=torch.uint8).view(3, 2, 1, 1))
    >>> pictures_of(data, torch.tensor([2, 0])).flatten()
    tensor([4, 5, 0, 1], dtype=torch.uint8)
    """
    if isinstance(dataset, LabelledImages):
        dataset = copy.copy(dataset)
        dataset.size = side
    return torch.stack([dataset[i][0] for i in rows.tolist()])
