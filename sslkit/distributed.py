"""Differentiable collectives; the identity in a single process."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """The number of processes; 1 where no process group is initialised.

    >>> world_size()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_gather(tensor: Tensor) -> Tensor:
    """Concatenate a tensor over processes along dim 0, in rank order, with gradient.

    The backward pass sums the gradients that all processes have for this process's part, so
    that a loss over the gathered batch, averaged over processes as DDP does, has exactly the
    gradient of one process holding the whole batch. Processes may bring different numbers of
    rows: the numbers are exchanged first, which waits for the device.

    Args:
        tensor: (N, ...); all but N alike on all processes.

    Returns:
        (sum of N, ...); the tensor itself in a single process.

    >>> all_gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    return gather_rows(tensor)[0]


def gather_rows(tensor: Tensor) -> tuple[Tensor, slice]:
    """As :func:`all_gather`, and which rows of the result came from this process.

    >>> gather_rows(torch.ones(2, 3))[1]
    slice(0, 2, None)
    """
    if world_size() == 1:
        return tensor, slice(0, len(tensor))
    own = torch.tensor([len(tensor)], device=tensor.device)
    counts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(counts, own)
    rows = torch.cat(counts).tolist()
    start = sum(rows[: dist.get_rank()])
    gathered: Tensor = _AllGather.apply(tensor, rows)
    return gathered, slice(start, start + len(tensor))


def all_sum(tensor: Tensor) -> Tensor:
    """Sum a tensor over processes, with gradient.

    Where each process has its share of a loss, the result is the loss, and its gradient,
    averaged over processes as DDP does, is that of one process holding the whole batch.

    >>> all_sum(torch.tensor(2.0))
    tensor(2.)
    """
    if world_size() == 1:
        return tensor
    total: Tensor = _AllSum.apply(tensor)
    return total


def sum_of_shares(loss: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The loss of the batch of all processes, each computing the share of its own anchors.

    Args:
        loss: takes the gathered tensors, and ``anchors``, the rows of this process (None for
            all); returns their share of the loss.
        tensors: (N, ...), N alike here, maybe another on other processes. The numbers are
            exchanged first, which waits for the device.

    Returns:
        The sum of all shares, a scalar.

    Raises:
        ValueError: tensors of different N, where there are several processes. As with any
            collective, an error in one process leaves the others waiting.

    >>> sum_of_shares(lambda z, anchors: z.mean() if anchors is None else ..., torch.ones(4))
    tensor(1.)
    """
    if world_size() == 1:
        return loss(*tensors, anchors=None)
    if len({len(tensor) for tensor in tensors}) > 1:
        counts = ", ".join(str(len(tensor)) for tensor in tensors)
        raise ValueError(f"what is gathered must have the same number of rows, not {counts}")
    gathered = [gather_rows(tensor) for tensor in tensors]
    return all_sum(loss(*(rows for rows, _ in gathered), anchors=gathered[0][1]))


def mean_over_processes(loss: Tensor, rows: int) -> Tensor:
    """The mean over the rows of all processes of a loss that is the mean over the rows here.

    >>> mean_over_processes(torch.tensor(2.0), rows=3)
    tensor(2.)
    """
    count = loss.detach().new_full((), rows)
    return all_sum(loss * (count / all_sum(count)))


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rows: list[int]) -> Tensor:
        ctx.rows = rows
        most = max(rows)
        padded = tensor.new_zeros(most, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, rows, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad.split(ctx.rows)[dist.get_rank()], None


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad
