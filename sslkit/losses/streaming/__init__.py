"""Log-sum-exp of similarities over many keys, streamed: their (N, M) matrix is never held.

Contrastive losses need, for each anchor, the logarithm of a sum of exponentials over all keys.
Tiles of the matrix are made, summed and dropped; the backward pass makes them again (as
attention without its matrix does: Rabe and Staats 2021, arXiv:2112.05682). Memory is
O(N (D + tile)). Two cases: all rows of a batch against each other (`tiles`), where each tile of
the upper triangle serves twice, and anchors against other keys (`strips`).
"""

import torch
from torch import Tensor

from sslkit.embeddings import full_precision
from sslkit.losses.streaming.definition import definition, index_mask, views_mask
from sslkit.losses.streaming.strips import by_strips
from sslkit.losses.streaming.tiles import by_tiles

SMALL = 96  # up to so many rows the whole matrix is faster


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
            return definition(z, z, scale, views_mask(z, period))
        return by_tiles(z, scale, period)


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
            return definition(x, y, scale, index_mask(x, y, excluded))
        need = torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad)
        return by_strips(x, y, scale, excluded, need)[0]


def _scalar(temperature: float | Tensor, z: Tensor) -> Tensor:
    if isinstance(temperature, Tensor):
        return temperature.reshape(())
    return torch.tensor(temperature, dtype=z.dtype)
