"""Batches of several images a class, for the losses that compare images of one class."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sslkit.data.loader import BatchOrder

Choose = Callable[[list[int], int, torch.Generator], list[int]]


class ClassBatches(BatchOrder):
    """Batches of P classes and K images of each (Hermans et al. 2017, arXiv:1703.07737).

    As :class:`BatchOrder` a pure function of seed, epoch, rank and position, of as many batches an
    epoch. Classes come in shuffled rounds, so that each is drawn as often as any other and never
    twice in a batch; so do the images within a class: those of a small class come more often than
    those of a large one. Over ``world_size`` processes each takes its P classes of the batch that
    one process with ``world_size`` times the batch would see.

    Where ``choose`` is set, it picks part of each batch's classes: only the first
    :func:`seeds_of` (P) of them, the seeds, come in shuffled rounds, so that all classes are met.
    The images within a class are then drawn anew for each batch, by a generator seeded by (seed,
    epoch, batch) alone. It is asked as a batch is handed out; a :class:`Loader` with worker
    processes is a few batches ahead of the step that is made.

    Args:
        labels: the class of each row, integers (N,) of at least 0.
        batch_size: rows a batch, on this process: P times K.
        per_class: K, 2 or more.
        classes: the name of each label, which an error then gives.
        seed: any integer.
        held_out: rows that come in no batch, such as :func:`held_out_rows`.

    Attributes:
        choose: from the labels of the seeds, how many more classes the batch takes, and a
            generator seeded by (seed, epoch, batch) to so many other labels; on one process only.

    Raises:
        ValueError: no labels, or some below 0; a K below 2, or a batch that is not K times 2 or
            more; fewer classes than a batch of all processes takes; a class of fewer than K
            images, or of which so few are left; in use, a choice that is not as many other classes.

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
        held_out: Tensor | None = None,
    ) -> None:
        check_per_class(per_class, batch_size)
        labels = _checked(labels)
        kept = torch.ones(len(labels), dtype=torch.bool)
        if held_out is not None:
            kept[held_out.cpu()] = False
        rows = kept.nonzero().squeeze(1)
        shown, number = labels.unique(return_inverse=True)
        counts = torch.bincount(number[rows], minlength=len(shown))
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
            left, lower = (
                ("", "") if kept.all() else (" left beside those held out", "held_out or ")
            )
            raise ValueError(
                f"class {name} has {count} image{'s' * (count != 1)}{left}, but per_class is "
                f"{per_class}, one of {len(short)} such: lower {lower}per_class, or take "
                "those classes out of the data"
            )
        super().__init__(len(rows), batch_size, seed=seed, rank=rank, world_size=world_size)
        self.per_class = per_class
        self.choose: Choose | None = None
        order = rows[labels[rows].argsort(stable=True)].tolist()
        ends = counts.cumsum(0).tolist()
        self.rows = [order[end - n : end] for end, n in zip(ends, counts.tolist(), strict=True)]
        self.shown = shown.tolist()

    def __iter__(self) -> Iterator[list[int]]:
        if self.choose is not None:
            yield from self._chosen(self.choose)
            return
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

    def _chosen(self, choose: Choose) -> Iterator[list[int]]:
        """The batches of which ``choose`` picks all classes but the seeds."""
        if self.world_size > 1:
            raise ValueError(f"classes are chosen on one process, not on {self.world_size}")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        classes = self.batch_size // self.per_class
        few = seeds_of(classes)
        rounds = _rounds(range(len(self.rows)), few, generator)
        start, self.start = self.start, 0
        for batch in range(len(self)):
            drawn = next(rounds)
            if batch < start:
                continue
            seeds = [self.shown[number] for number in drawn]
            picked = choose(list(seeds), classes - few, self._generator(batch, 0))
            others = set(picked) & set(self.shown) - set(seeds)
            if len(picked) != classes - few or len(others) != len(picked):
                raise ValueError(
                    f"choose must give {classes - few} different classes of those there are and "
                    f"none of the seeds {seeds}, not {picked}"
                )
            generator = self._generator(batch, 1)
            numbers = drawn + [bisect_left(self.shown, label) for label in picked]
            yield [row for number in numbers for row in self._images(number, generator)]

    def _images(self, number: int, generator: torch.Generator) -> list[int]:
        rows = self.rows[number]
        order = torch.randperm(len(rows), generator=generator)[: self.per_class]
        return [rows[i] for i in order.tolist()]

    def _generator(self, batch: int, stream: int) -> torch.Generator:
        place = np.random.SeedSequence((self.seed % 2**64, self.epoch, batch, stream))
        return torch.Generator().manual_seed(int(place.generate_state(1, np.uint64)[0]))


def seeds_of(classes: int) -> int:
    """How many of a batch's classes come in rounds where the others are chosen: a quarter.

    >>> seeds_of(32), seeds_of(3)
    (8, 1)
    """
    return max(1, classes // 4)


def held_out_rows(labels: Tensor, images: int) -> Tensor:
    """So many rows of each class, class by class: a draw that is the same for the same labels.

    Args:
        labels: integers (N,).
        images: at least 0; a class of fewer gives all it has.

    >>> labels = torch.tensor([7, 3, 7, 3, 7, 3])
    >>> labels[held_out_rows(labels, 2)]
    tensor([3, 3, 7, 7])
    """
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    order = order[labels[order].argsort(stable=True)]
    counts = labels.unique(return_counts=True)[1]
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order[torch.arange(len(labels)) - first < images]


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
    if batch_size == per_class:
        raise ValueError(
            f"a batch must hold 2 classes or more, not one: raise batch_size, {batch_size}"
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
