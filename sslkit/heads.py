"""Heads that stand on a backbone during pretraining and are thrown away after it."""

from itertools import pairwise

from torch import nn


class Projector(nn.Sequential):
    """The MLP of SimCLR (Chen et al. 2020): linear, BatchNorm, ReLU, ..., linear, BatchNorm.

    (N, in_dim) to (N, out_dim). A linear layer before a BatchNorm has no bias.

    Args:
        in_dim: the backbone's ``feature_dim``.
        hidden_dim: width of the hidden layers.
        out_dim: width of the projections.
        layers: number of linear layers, at least 1; SimCLR has 2 (SimCLR v2: 3).

    Raises:
        ValueError: a size below 1.

    >>> import torch
    >>> Projector(512, 512, 128)(torch.randn(4, 512)).shape
    torch.Size([4, 128])
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, layers: int = 2) -> None:
        if min(in_dim, hidden_dim, out_dim, layers) < 1:
            raise ValueError(
                "a projector's sizes must be at least 1, not "
                f"{in_dim=}, {hidden_dim=}, {out_dim=}, {layers=}"
            )
        widths = [in_dim] + [hidden_dim] * (layers - 1) + [out_dim]
        modules: list[nn.Module] = []
        for before, after in pairwise(widths):
            modules += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        super().__init__(*modules[:-1])
