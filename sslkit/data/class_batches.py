"""Batches of several images a class, for the losses that compare images of one class."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sslkit.data.loader import BatchOrder


class ClassBatches(BatchOrder):
    """Batches of P classes and K images of each (Hermans et al. 2017, arXiv:1703.07737).

    As :class:`BatchOrder` a pure function of seed, epoch, rank and position, of as many batches an
    epoch. Classes come in shuffled rounds, so that each is drawn as often as any other and never
    twice in a batch; so do the images within a class: those of a small class come more often than
    those of a large one. Over ``world_size`` processes each takes its P classes of the batch that
    one process with ``world_size`` times the batch would see.

    Args:
        labels: the class of each row, integers (N,) of at least 0.
        batch_size: rows a batch, on this process: P times K.
        per_class: K, 2 or more.
        classes: the name of each label, which an error then gives.
        seed: any integer.

    Raises:
        ValueError: no labels, or some below 0; a K below 2, or of which the batch is no multiple;
            fewer classes than a batch of all processes takes; a class of fewer than K images.

    >>> order = ClassBatches(torch.tensor([0, 1, 2, 0, 1, 2]), batch_size=4, per_class=2)
    >>> (batch,) = order
    >>> len({row % 3 for row in batch}), len(set(batch))
    (2, 4)
    """

    def __init__(
        self,
        labels: Tensor | None,
        batch_size: int,
        per_class: int,
        *,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_per_class(per_class, batch_size)
        labels = _checked(labels)
        super().__init__(len(labels), batch_size, seed=seed, rank=rank, world_size=world_size)
        self.per_class = per_class
        shown, counts = labels.unique(return_counts=True)
        needed = batch_size // per_class * world_size
        if len(shown) < needed:
            raise ValueError(
                f"batch_size {batch_size} with {per_class} images a class on {world_size} "
                f"process(es) takes {needed} classes, but there are {len(shown)}: lower it, "
                "or raise per_class"
            )
        if (short := (counts < per_class).nonzero()).numel():
            label, count = int(shown[short[0]]), int(counts[short[0]])
            name = repr(classes[label]) if classes else str(label)
            raise ValueError(
                f"class {name} has {count} image{'s' * (count > 1)}, but per_class is {per_class}, "
                f"one of {len(short)} such: lower per_class, or leave those classes out"
            )
        order = labels.argsort(stable=True).tolist()
        ends = counts.cumsum(0).tolist()
        self.rows = [order[end - n : end] for end, n in zip(ends, counts.tolist(), strict=True)]

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        mine = self.batch_size // self.per_class
        classes = _rounds(range(len(self.rows)), mine * self.world_size, generator)
        images = [_rounds(rows, self.per_class, generator) for rows in self.rows]
        start, self.start = self.start, 0
        for batch in range(len(self)):
            drawn = [next(images[number]) for number in next(classes)]  # for all processes
            if batch >= start:
                own = drawn[self.rank * mine : (self.rank + 1) * mine]
                yield [row for rows in own for row in rows]


def check_per_class(per_class: int, batch_size: int) -> None:
    """Raise ValueError unless a batch is whole classes of 2 images or more.

    >>> check_per_class(3, 8)
    Traceback (most recent call last):
    ...
    ValueError: batch_size must be a multiple of per_class, 3, not 8
    """
    if per_class < 2:
        raise ValueError(f"per_class must be at least 2, not {per_class}")
    if batch_size % per_class:
        raise ValueError(
            f"batch_size must be a multiple of per_class, {per_class}, not {batch_size}"
        )


def _checked(labels: Tensor | None) -> Tensor:
    """The labels, on the CPU; ValueError unless there is one for each image."""
    if labels is None:
        raise ValueError("per_class needs labels, and the data has none")
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = str(labels.dtype).removeprefix("torch.")
        text = f"not {kind} {tuple(labels.shape)}"
        raise ValueError(f"per_class needs labels that are (N,) integers, one an image, {text}")
    labels = labels.cpu()
    if (missing := (labels < 0).nonzero()).numel():
        text = f"{len(missing)} of {len(labels)} images have none, the first is {int(missing[0])}"
        raise ValueError(f"per_class needs labels of at least 0: {text}")
    return labels


def _rounds(items: Sequence[int], window: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Windows of different items, without end, out of shuffled rounds that are laid end to end.

    Where a round ends within a window, the next begins with items that the window lacks.
    """
    rest: list[int] = []
    while True:
        shuffled = [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]
        there = set(rest)
        first = [item for item in shuffled if item not in there][: window - len(rest)]
        there = set(first)
        queue = rest + first + [item for item in shuffled if item not in there]
        whole = len(queue) - len(queue) % window
        for at in range(0, whole, window):
            yield queue[at : at + window]
        rest = queue[whole:]
