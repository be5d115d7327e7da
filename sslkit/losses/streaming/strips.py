"""Anchors against keys: a strip holds some anchors' similarities to all keys."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sslkit.embeddings import full_precision
from sslkit.losses.streaming.definition import definition, gradients, index_mask, is_flat


def _slices(x: Tensor, y: Tensor) -> Iterator[slice]:
    height = max(16, (2**19 if x.device.type == "cpu" else 2**25) // len(y))
    for top in range(0, len(x), height):
        yield slice(top, top + height)


def _strip(x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, rows: slice) -> Tensor:
    strip = torch.mm(x[rows] / scale, y.T)
    return strip if excluded is None else strip.scatter_(1, excluded[rows], -math.inf)


@torch.library.custom_op("sslkit::log_sum_exp", mutates_args=())
def by_strips(
    x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, with_mean: bool
) -> tuple[Tensor, Tensor]:
    """The log-sum-exp (N,), and the keys' means under its softmax (N, D), which is its gradient."""
    lse = x.new_empty(len(x))
    mean = torch.empty_like(x) if with_mean else x.new_empty(0)
    for rows in _slices(x, y):
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
def by_strips_backward(
    grad: Tensor, x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, lse: Tensor
) -> Tensor:
    """The gradient of the keys; that of the anchors is ``mean`` times their own."""
    total = torch.zeros_like(y)
    weight = grad / scale
    for rows in _slices(x, y):
        strip = _strip(x, y, scale, excluded, rows).sub_(lse[rows, None]).exp_()
        total.addmm_(strip.T, x[rows] * weight[rows, None])
    return total


@by_strips.register_fake
def _(
    x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, with_mean: bool
) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x)), torch.empty_like(x) if with_mean else x.new_empty(0)


@by_strips_backward.register_fake
def _(
    grad: Tensor, x: Tensor, y: Tensor, scale: Tensor, excluded: Tensor | None, lse: Tensor
) -> Tensor:
    return torch.empty_like(y)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, y, scale, excluded, _ = inputs
    ctx.save_for_backward(x, y, scale, excluded, *output)
    ctx.set_materialize_grads(False)


def _grad(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, y, scale, excluded, lse, mean = ctx.saved_tensors
    if grad is None:
        return None, None, None, None, None
    if torch.is_grad_enabled():
        mask = index_mask(x, y, excluded)
        found = gradients(lambda x, y, s: definition(x, y, s, mask), grad, x, y, scale)
        return *found, None, None
    need_x, need_y, need_scale, *_ = ctx.needs_input_grad
    gx = mean * (grad / scale)[:, None] if need_x or need_scale else None
    with full_precision(x):
        gy = by_strips_backward(grad.contiguous(), x, y, scale, excluded, lse) if need_y else None
    gscale = -(x * gx).sum() / scale if need_scale and gx is not None else None
    return gx if need_x else None, gy, gscale, None, None


by_strips.register_autograd(_grad, setup_context=_setup)
