"""The log-sum-exp of similarities with its matrix: what the streamed one is held against."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sslkit.embeddings import full_precision

FLAT = 0.03  # from this temperature on exp(cosine / temperature) needs no shift in float32
LOG2_E = math.log2(math.e)  # exp2 takes half the time of exp


def definition(x: Tensor, y: Tensor, scale: Tensor, mask: Tensor | None) -> Tensor:
    """For each row of x: log of the sum of exponentials over y, where the mask is not."""
    logits = x @ y.T / scale
    if mask is not None:
        logits = logits.masked_fill(mask, -math.inf)
    return logits.logsumexp(1)


def views_mask(z: Tensor, period: int) -> Tensor:
    i = torch.arange(len(z), device=z.device)
    return (i[:, None] - i) % period == 0


def index_mask(x: Tensor, y: Tensor, excluded: Tensor | None) -> Tensor | None:
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


def gradients(
    function: Callable[..., Tensor], grad: Tensor, *inputs: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of a function, where an input asks for one, to be differentiated again.

    They are those of aliases: where one input was made from another, only the way through the
    function counts here.
    """
    aliases = [t.view_as(t) for t in inputs]
    asked = [t for t in aliases if t.requires_grad]
    with full_precision(inputs[0]):
        found = iter(torch.autograd.grad(function(*aliases), asked, grad, create_graph=True))
    return tuple(next(found) if t.requires_grad else None for t in aliases)
