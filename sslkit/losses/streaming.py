"""Log-sum-exp of similarities over many keys, streamed: their (N, M) matrix is never held.

Contrastive losses need, for each anchor, the logarithm of a sum of exponentials over all keys.
Tiles of the matrix are made, summed and dropped; the backward pass makes them again (as
attention without its matrix does: Rabe and Staats 2021, arXiv:2112.05682). Memory is
O(N (D + tile)). Two cases: all rows of a batch against each other, where each tile of the upper
triangle serves twice, and anchors against other keys.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor

from sslkit.embeddings import full_precision

SMALL = 96  # up to so many rows the whole matrix is faster
FLAT = 0.03  # from this temperature on exp(cosine / temperature) needs no shift in float32
LOG2_E = math.log2(math.e)  # exp2 takes half the time of exp
KEPT = 2**21  # elements of tiles kept from the forward to the backward pass


def log_sum_exp_self(z: Tensor, *, temperature: float | Tensor, period: int) -> Tensor:
    """For each unit row i of (N, D): log of the sum over j of exp(z_i . z_j / temperature).

    Left out are the rows j that differ from i by a multiple of ``period``: N leaves out row i
    itself, N / V all V views of one image, where z is the views one after the other.

    >>> log_sum_exp_self(torch.eye(3), temperature=1.0, period=3)  # log(2)
    tensor([0.6931, 0.6931, 0.6931])
    """
    scale = _scalar(temperature, z)
    with full_precision(z):
        if len(z) <= SMALL:
            return _dense(z, z, scale, _views_mask(z, period))
        return _self(z, scale, period)


def log_sum_exp(
    x: Tensor, y: Tensor, *, temperature: float | Tensor, excluded: Tensor | None = None
) -> Tensor:
    """For each unit row i of x (N, D): log of the sum over j of exp(x_i . y_j / temperature).

    Args:
        x: anchors, (N, D).
        y: keys, (M, D).
        temperature: above 0.
        excluded: keys left out of each anchor's sum, indices (N, E).

    >>> log_sum_exp(torch.eye(3), torch.eye(3), temperature=1.0)  # log(2 + e)
    tensor([1.5514, 1.5514, 1.5514])
    """
    scale = _scalar(temperature, x)
    with full_precision(x):
        if len(x) * len(y) <= SMALL**2:
            return _dense(x, y, scale, _index_mask(x, y, excluded))
        need = torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad)
        return _rows(x, y, scale, excluded, need)[0]


def _scalar(temperature: float | Tensor, z: Tensor) -> Tensor:
    if isinstance(temperature, Tensor):
        return temperature.reshape(())
    return torch.tensor(temperature, dtype=z.dtype)


def _dense(x: Tensor, y: Tensor, scale: Tensor, mask: Tensor | None) -> Tensor:
    """The definition, with its matrix."""
    logits = x @ y.T / scale
    if mask is not None:
        logits = logits.masked_fill(mask, -math.inf)
    return logits.logsumexp(1)


def _views_mask(z: Tensor, period: int) -> Tensor:
    i = torch.arange(len(z), device=z.device)
    return (i[:, None] - i) % period == 0


def _index_mask(x: Tensor, y: Tensor, excluded: Tensor | None) -> Tensor | None:
    if excluded is None:
        return None
    mask = torch.zeros(len(x), len(y), dtype=torch.bool, device=x.device)
    return mask.scatter(1, excluded, True)


def is_flat(scale: float | Tensor) -> bool:
    """Whether a temperature is known to be so high that exponentials need no shift."""
    # Reading a temperature that is on another device would wait for it.
    if isinstance(scale, Tensor):
        return scale.device.type == "cpu" and float(scale.detach()) >= FLAT
    return scale >= FLAT


# All rows against each other. A tile of exponentials is symmetric to one that is never made.


def _side(z: Tensor) -> int:
    """The rows and columns of a tile: what two cores' caches, or a GPU, take best."""
    if z.device.type != "cpu":
        return 4096
    return 512 if z.shape[0] <= 2048 else 768


def space_for(z: Tensor, keep: bool) -> Tensor:
    """Room for tiles (S, side, side): for one, or for those that are worth keeping."""
    side = _side(z)
    parts = math.ceil(z.shape[0] / side)
    slots = min(parts * (parts + 1) // 2, max(1, KEPT // side**2)) if keep else 1
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
def _self(z: Tensor, scale: Tensor, period: int) -> Tensor:
    if is_flat(scale):
        return self_sums(z, scale, period, space_for(z, keep=False)).log_()
    return _rows(z, z, scale, _views(z, period), False)[0]


@torch.library.custom_op("sslkit::log_sum_exp_self_backward", mutates_args=())
def _self_backward(grad: Tensor, z: Tensor, scale: Tensor, period: int, lse: Tensor) -> Tensor:
    if is_flat(scale):
        space = space_for(z, keep=False)
        return self_gradient(grad * (-lse).exp() / scale, z, scale, period, space, kept=False)
    excluded = _views(z, period)
    mean = _rows(z, z, scale, excluded, True)[1]
    keys = _rows_backward(grad, z, z, scale, excluded, lse)
    return keys.addcmul_(mean, (grad / scale)[:, None])


def _views(z: Tensor, period: int) -> Tensor:
    """What ``period`` leaves out of each row, as indices (N, N / period)."""
    n = len(z)
    i = torch.arange(n, device=z.device)
    return (i[:, None] + torch.arange(0, n, period, device=z.device)) % n


# Anchors against keys. A strip holds some anchors' similarities to all keys.


def _strips(x: Tensor, y: Tensor) -> Iterator[slice]:
    height = max(16, (2**19 if x.device.type == "cpu" else 2**25) // len(y))
    for top in range(0, len(x), height):
        yield slice(top, top + height)


def _strip(x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, rows: slice) -> Tensor:
    strip = torch.mm(x[rows] / scale, y.T)
    return strip if excluded is None else strip.scatter_(1, excluded[rows], -math.inf)


@torch.library.custom_op("sslkit::log_sum_exp", mutates_args=())
def _rows(
    x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, with_mean: bool
) -> tuple[Tensor, Tensor]:
    """The log-sum-exp (N,), and the keys' means under its softmax (N, D), which is its gradient."""
    lse = x.new_empty(len(x))
    mean = torch.empty_like(x) if with_mean else x.new_empty(0)
    for rows in _strips(x, y):
        strip = _strip(x, y, scale, excluded, rows)
        if is_flat(scale):
            total = strip.exp_().sum(1)
            lse[rows] = total.log()
        else:
            highest = strip.amax(1)
            total = strip.sub_(highest[:, None]).exp_().sum(1)
            lse[rows] = total.log() + highest
        if with_mean:
            mean[rows] = torch.mm(strip, y) / total[:, None]
    return lse, mean


@torch.library.custom_op("sslkit::log_sum_exp_backward", mutates_args=())
def _rows_backward(
    grad: Tensor, x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, lse: Tensor
) -> Tensor:
    """The gradient of the keys; that of the anchors is ``mean`` times their own."""
    total = torch.zeros_like(y)
    weight = grad / scale
    for rows in _strips(x, y):
        strip = _strip(x, y, scale, excluded, rows).sub_(lse[rows, None]).exp_()
        total.addmm_(strip.T, x[rows] * weight[rows, None])
    return total


# What autograd and torch.compile are told of them.


@_self.register_fake
def _(z: Tensor, scale: Tensor, period: int) -> Tensor:
    return z.new_empty(len(z))


@_self_backward.register_fake
def _(grad: Tensor, z: Tensor, scale: Tensor, period: int, lse: Tensor) -> Tensor:
    return torch.empty_like(z)


@_rows.register_fake
def _(
    x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, with_mean: bool
) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x)), torch.empty_like(x) if with_mean else x.new_empty(0)


@_rows_backward.register_fake
def _(
    grad: Tensor, x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, lse: Tensor
) -> Tensor:
    return torch.empty_like(y)


def _self_setup(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    z, scale, ctx.period = inputs
    ctx.save_for_backward(z, scale, output)


def _self_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    z, scale, lse = ctx.saved_tensors
    if torch.is_grad_enabled():  # to be differentiated again: through the definition
        value = _dense(z, z, scale, _views_mask(z, ctx.period))
        return *gradients(value, grad, (z, scale)), None
    gz = _self_backward(grad.contiguous(), z, scale, ctx.period, lse)
    # Every similarity over the temperature is bilinear in z: Euler's theorem gives the other.
    gscale = -(z * gz).sum() / (2 * scale) if ctx.needs_input_grad[1] else None
    return gz, gscale, None


def _rows_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, y, scale, excluded, _ = inputs
    ctx.save_for_backward(x, y, scale, excluded, *output)
    ctx.set_materialize_grads(False)


def _rows_grad(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, y, scale, excluded, lse, mean = ctx.saved_tensors
    if grad is None:
        return None, None, None, None, None
    if torch.is_grad_enabled():
        value = _dense(x, y, scale, _index_mask(x, y, excluded))
        return *gradients(value, grad, (x, y, scale)), None, None
    need_x, need_y, need_scale, *_ = ctx.needs_input_grad
    gx = mean * (grad / scale)[:, None] if need_x or need_scale else None
    gy = _rows_backward(grad.contiguous(), x, y, scale, excluded, lse) if need_y else None
    gscale = -(x * gx).sum() / scale if need_scale and gx is not None else None
    return gx if need_x else None, gy, gscale, None, None


def gradients(value: Tensor, grad: Tensor, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients of a value, where an input asks for one, to be differentiated again."""
    asked = [t for t in inputs if t is not None and t.requires_grad]
    found = iter(torch.autograd.grad(value, asked, grad, create_graph=True))
    return [next(found) if t is not None and t.requires_grad else None for t in inputs]


_self.register_autograd(_self_grad, setup_context=_self_setup)
_rows.register_autograd(_rows_grad, setup_context=_rows_setup)
