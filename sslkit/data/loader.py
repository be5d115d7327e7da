"""Batches in an order that depends on seed and epoch alone, and that resumes in mid-epoch."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sslkit.data.array import ArrayDataset


class Images(NamedTuple):
    """A batch as the data gives it: uint8 (N, C, H, W), labels or -1 (N,), row numbers (N,)."""

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # the field's term, over tuple.index


class BatchOrder(Sampler[list[int]]):
    """Shuffled batches of row numbers; a pure function of seed, epoch, rank and position.

    Whole batches only: the remainder of an epoch is left out, as contrastive losses want. Over
    ``world_size`` processes each batch is dealt out, so that all of them together see the order
    that one process with ``world_size`` times the batch would see.

    Args:
        n: rows in the data set.
        batch_size: rows a batch, on this process.
        seed: any integer.

    Raises:
        ValueError: a batch size below 1, or more rows a step than there are in the data.

    >>> order = BatchOrder(5, batch_size=2, seed=0)
    >>> first = list(order); order.start = 1; list(order) == first[1:]
    True
    """

    def __init__(
        self, n: int, batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if batch_size * world_size > n:
            raise ValueError(
                f"batch_size {batch_size} on {world_size} process(es) is more than the {n} images "
                "there are: lower it"
            )
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        rows = torch.randperm(self.n, generator=generator)
        start, self.start = self.start, 0
        for batch in range(start, len(self)):
            at = (batch * self.world_size + self.rank) * self.batch_size
            yield rows[at : at + self.batch_size].tolist()


class Loader:
    """Training batches: cut out of a resident tensor, or streamed by worker processes.

    An :class:`ArrayDataset` is indexed on the device where its tensor lies, without workers;
    any other data set goes through ``torch.utils.data.DataLoader``. ``position`` counts the
    batches of the epoch that were handed out; it is in the data module's ``state_dict``, and not
    in one of its own, which Lightning would restore in some checkpoints and not in others.

    >>> data = ArrayDataset(torch.zeros(6, 3, 2, 2, dtype=torch.uint8))
    >>> [len(batch.index) for batch in Loader(data, BatchOrder(6, 2))]
    [2, 2, 2]
    """

    def __init__(self, dataset: Dataset, order: BatchOrder, *, workers: int = 0) -> None:
        self.dataset, self.sampler = dataset, order
        self.batch_size = order.batch_size
        self.position = 0
        self._resume = 0
        self._stream: DataLoader | None = None
        if not isinstance(dataset, ArrayDataset):
            self._stream = DataLoader(
                _Indexed(dataset),
                batch_sampler=order,
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=torch.cuda.is_available(),
            )

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Images]:
        self.position, self._resume = self._resume, 0
        self.sampler.start = self.position
        for batch in self._resident() if self._stream is None else self._stream:
            self.position += 1
            yield Images(*batch)

    def _resident(self) -> Iterator[Images]:
        assert isinstance(self.dataset, ArrayDataset)
        images, labels = self.dataset.images, self.dataset.labels
        for rows in self.sampler:
            index = torch.tensor(rows).to(images.device, non_blocking=True)  # else it would wait
            yield Images(
                images[index],
                torch.full_like(index, -1) if labels is None else labels[index],
                index,
            )

    def resume_at(self, position: int) -> None:
        """The next epoch begins after so many of its batches; those that follow are whole."""
        self._resume = position


def gather(dataset: Dataset, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The images, uint8 (M, C, H, W), and labels, int64 (M,), of some rows, on the CPU."""
    if isinstance(dataset, ArrayDataset):
        rows = rows.to(dataset.images.device)
        labels = torch.full_like(rows, -1) if dataset.labels is None else dataset.labels[rows]
        return dataset.images[rows].cpu(), labels.cpu()
    pairs = [dataset[i] for i in rows.tolist()]
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


class _Indexed(Dataset):
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, i: int) -> tuple[Tensor, int, int]:
        image, label = self.dataset[i]
        return image, label, i
