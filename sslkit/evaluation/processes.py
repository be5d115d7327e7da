"""One extraction by several processes of torch.distributed: who does what, and how it ends."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from sslkit.distributed import world_size

TEXT = 1000  # bytes of an error that travel


def rank() -> int:
    """The number of this process, 0 in a single one.

    >>> rank()
    0
    """
    return dist.get_rank() if world_size() > 1 else 0


def share(n: int, block: int, process: int | None = None) -> range:
    """The rows out of n of one process, by default of this one: contiguous, in whole blocks.

    The first process always has some; the last may have none.

    >>> share(70, 32)
    range(0, 70)
    """
    process = rank() if process is None else process
    blocks = -(-n // block)
    most = -(-blocks // world_size()) * block
    return range(min(process * most, n), min((process + 1) * most, n))


def largest(*numbers: int, device: torch.device | str = "cpu") -> list[int]:
    """The largest that any process brings, of each of some numbers.

    >>> largest(3, 4)
    [3, 4]
    """
    if world_size() == 1:
        return list(numbers)
    found = torch.tensor(numbers, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


@contextmanager
def together(device: torch.device | str = "cpu", active: bool = True) -> Iterator[None]:
    """What every process does without the others, and where they meet when they have done it.

    A ValueError, OSError or RuntimeError in one process is raised in all of them, so that none
    waits for ever; any other ends its process, and the others as their launcher does it.

    Raises:
        ValueError: another process failed: which one, and why.

    >>> with together():
    ...     rows = share(70, 32)
    """
    active = active and world_size() > 1
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if active:
            _meet(error, device)
        raise
    if active:
        _meet(None, device)


def _meet(fault: Exception | None, device: torch.device | str) -> None:
    (failed,) = largest(0 if fault is None else rank() + 1, device=device)
    if not failed:
        return
    words = " ".join(str(fault).split()).encode()[:TEXT]
    text = torch.zeros(TEXT, dtype=torch.uint8)
    text[: len(words)] = torch.tensor(list(words), dtype=torch.uint8)
    text = text.to(device)
    dist.broadcast(text, src=failed - 1)
    if fault is None:
        why = bytes(text.tolist()).rstrip(b"\0").decode(errors="replace")
        raise ValueError(f"process {failed} of {world_size()} failed: {why}")


def complete(rows: Tensor, block: int, device: torch.device | str = "cpu") -> None:
    """Fill in the rows that the other processes have: each has those of its :func:`share`."""
    for source in range(world_size()):
        own = share(len(rows), block, source)
        for part in rows[own.start : own.stop].split(16_384):
            moved = part.to(device)  # NCCL takes nothing from the CPU
            dist.broadcast(moved, src=source)
            part.copy_(moved)
