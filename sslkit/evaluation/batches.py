"""Rows of a data set in its order, for reading it once: worker processes where images are files."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from sslkit.data import ArrayDataset

Batch = tuple[int, Tensor, Tensor]  # the first row, images (N, ...), labels (N,) or (N, C)


def in_order(
    dataset: Dataset,
    rows: range,
    size: int,
    *,
    workers: int | None = None,
    pin: bool = False,
) -> Iterator[Batch]:
    """Some rows of a data set as batches, the last maybe shorter.

    Args:
        dataset: gives (image, label), a label being an int or int64 (C,). size: rows a batch.
        workers: processes that load them; by default one a core, at most 8, no more than there
            are further batches, and none for what lies in memory.
        pin: whether the batches lie in page-locked memory, from where a GPU copies faster.

    Raises:
        ValueError, OSError: as the data set does, in one line also where a worker raised it.

    >>> data = ArrayDataset(torch.zeros(5, 3, 2, 2, dtype=torch.uint8), torch.arange(5))
    >>> [(at, labels.tolist()) for at, _, labels in in_order(data, range(1, 5), 3)]
    [(1, [1, 2, 3]), (4, [4])]
    """
    if isinstance(dataset, ArrayDataset):
        for at in rows[::size]:
            part = slice(at, min(at + size, rows.stop))
            images, labels = dataset.images[part], dataset.labels
            yield at, images, torch.full((len(images),), -1) if labels is None else labels[part]
        return
    if workers is None:
        workers = _workers(dataset, len(rows) // size)
    # Its own generator: a DataLoader draws from torch's, and training may be going on.
    loader = DataLoader(
        _Rows(dataset, rows),
        size,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin and workers > 0,  # what needs no workers may lie on the GPU
        generator=torch.Generator(),
    )
    at = rows.start
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        images, labels = batch
        yield at, images, labels
        at += len(images)


def _workers(dataset: Dataset, most: int) -> int:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    resident = isinstance(dataset, ArrayDataset | TensorDataset)
    return 0 if resident else min(os.cpu_count() or 1, 8, most)


class _Rows(Dataset):
    """Some rows; an error is an item: raised in a worker, torch makes it a page of traceback."""

    def __init__(self, dataset: Dataset, rows: range) -> None:
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int | Tensor] | Exception:
        try:
            return self.dataset[self.rows[i]]
        except (ValueError, OSError) as error:
            return error


def _collate(items: list[tuple[Tensor, int | Tensor] | Exception]) -> Any:
    """A batch, or the first error in it."""
    errors = [item for item in items if isinstance(item, Exception)]
    return errors[0] if errors else default_collate(items)
