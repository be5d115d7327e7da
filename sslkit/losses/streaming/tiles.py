"""All rows against each other: a tile of exponentials is its mirror image, which is never made."""

import math
from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor

from sslkit.embeddings import full_precision
from sslkit.losses.streaming.definition import (
    LOG2_E,
    definition,
    gradients,
    is_flat,
    views_mask,
)
from sslkit.losses.streaming.strips import by_strips, by_strips_backward

# Elements of tiles kept from the forward to the backward pass: on a GPU, 2 GB of its memory.
KEPT, KEPT_ON_GPU = 2**21, 2**29


def _side(z: Tensor) -> int:
    """The rows and columns of a tile: what two cores' caches, or a GPU, take best."""
    if z.device.type != "cpu":
        return 4096
    return 512 if z.shape[0] <= 2048 else 768


def space_for(z: Tensor, keep: bool) -> Tensor:
    """Room for tiles (S, side, side): for one, or for those that are worth keeping."""
    side = _side(z)
    parts = math.ceil(z.shape[0] / side)
    kept = KEPT if z.device.type == "cpu" else KEPT_ON_GPU
    slots = min(parts * (parts + 1) // 2, max(1, kept // side**2)) if keep else 1
    return z.new_empty(slots, side, side)


def _tiles(
    z: Tensor, scale: float | Tensor, period: int, space: Tensor, kept: int = 0
) -> Iterator[tuple[int, int, Tensor]]:
    """Rows, columns and tiles of the upper triangle, the first ``kept`` as they are in the space.

    A tile holds exp(z_i . z_j / scale), and 0 where i - j is a multiple of the period. It may be
    changed; it stands until the space is full, the last slot until the next tile.
    """
    parts, side = z.split(space.shape[1]), space.shape[1]
    for t, (i, j) in enumerate(combinations_with_replacement(range(len(parts)), 2)):
        height, width = parts[i].shape[0], parts[j].shape[0]
        slot = space[min(t, space.shape[0] - 1)].view(-1)
        tile = slot[: height * width].view(height, width)
        if t >= kept:
            torch.mm(parts[i] * (LOG2_E / scale), parts[j].T, out=tile).exp2_()
            shift = (i - j) * side
            lowest = shift - (shift + height - 1) // period * period
            for offset in range(lowest, width, period):
                tile.diagonal(offset).zero_()
        yield i, j, tile


def self_sums(z: Tensor, scale: float | Tensor, period: int, space: Tensor) -> Tensor:
    """The sums of exponentials whose logarithm :func:`log_sum_exp_self` is; for a flat scale."""
    sums: list[Tensor] = []
    for i, j, tile in _tiles(z, scale, period, space):
        if i == 0:
            sums.append(tile.sum(0))
        else:
            sums[j] += tile.sum(0)
        if i < j:
            sums[i] += tile.sum(1)
    return torch.cat(sums)


def self_gradient(
    weight: Tensor, z: Tensor, scale: float | Tensor, period: int, space: Tensor, kept: bool
) -> Tensor:
    """The gradient of the sum of weight_i times :func:`self_sums`_i, over z, times the scale.

    ``kept`` says that the space is as :func:`self_sums` left it.
    """
    side, slots = space.shape[1], space.shape[0]
    parts, weights = z.split(side), weight.split(side)
    whole = slots == len(parts) * (len(parts) + 1) // 2
    as_they_are = (slots if whole else slots - 1) if kept else 0
    both = torch.empty_like(space[0])
    sums: list[Tensor] = []
    for i, j, tile in _tiles(z, scale, period, space, as_they_are):
        height, width = tile.shape
        tile.mul_(torch.add(weights[i][:, None], weights[j], out=both[:height, :width]))
        if i == 0:
            sums.append(tile.T @ parts[i])
        else:
            sums[j].addmm_(tile.T, parts[i])
        if i < j:
            sums[i].addmm_(tile, parts[j])
    return torch.cat(sums)


@torch.library.custom_op("sslkit::log_sum_exp_self", mutates_args=())
def by_tiles(z: Tensor, scale: Tensor, period: int) -> Tensor:
    if is_flat(scale):
        return self_sums(z, scale, period, space_for(z, keep=False)).log_()
    return by_strips(z, z, scale, _views(z, period), False)[0]


@torch.library.custom_op("sslkit::log_sum_exp_self_backward", mutates_args=())
def by_tiles_backward(grad: Tensor, z: Tensor, scale: Tensor, period: int, lse: Tensor) -> Tensor:
    if is_flat(scale):
        space = space_for(z, keep=False)
        return self_gradient(grad * (-lse).exp() / scale, z, scale, period, space, kept=False)
    excluded = _views(z, period)
    mean = by_strips(z, z, scale, excluded, True)[1]
    keys = by_strips_backward(grad, z, z, scale, excluded, lse)
    return keys.addcmul_(mean, (grad / scale)[:, None])


def _views(z: Tensor, period: int) -> Tensor:
    """What ``period`` leaves out of each row, as indices (N, N / period)."""
    n = len(z)
    i = torch.arange(n, device=z.device)
    return (i[:, None] + torch.arange(0, n, period, device=z.device)) % n


@by_tiles.register_fake
def _(z: Tensor, scale: Tensor, period: int) -> Tensor:
    return z.new_empty(len(z))


@by_tiles_backward.register_fake
def _(grad: Tensor, z: Tensor, scale: Tensor, period: int, lse: Tensor) -> Tensor:
    return torch.empty_like(z)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    z, scale, ctx.period = inputs
    ctx.save_for_backward(z, scale, output)


def _grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    z, scale, lse = ctx.saved_tensors
    if torch.is_grad_enabled():  # to be differentiated again: through the definition
        mask = views_mask(z, ctx.period)
        return *gradients(lambda z, scale: definition(z, z, scale, mask), grad, z, scale), None
    with full_precision(z):
        gz = by_tiles_backward(grad.contiguous(), z, scale, ctx.period, lse)
    # Every similarity over the temperature is bilinear in z: Euler's theorem gives the other.
    gscale = -(z * gz).sum() / (2 * scale) if ctx.needs_input_grad[1] else None
    return gz, gscale, None


by_tiles.register_autograd(_grad, setup_context=_setup)
