"""Differentiable all-gather; the identity in a single process."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def all_gather(tensor: Tensor) -> Tensor:
    """Concatenate a tensor over processes along dim 0, in rank order, with gradient.

    The backward pass sums the gradients that all processes have for this process's part, so
    that a loss over the gathered batch, averaged over processes as DDP does, has exactly the
    gradient of one process holding the whole batch.

    Args:
        tensor: (N, ...), of one shape on all processes.

    Returns:
        (world size * N, ...); the tensor itself where no process group is initialised.

    >>> all_gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return tensor
    return _AllGather.apply(tensor)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]
