"""Heads that stand on a backbone during pretraining and are thrown away after it."""

from itertools import pairwise

from torch import Tensor, nn


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


class LateFusion(nn.Module):
    """A classifier of parts that are seen one by one (Noroozi and Favaro 2016, arXiv:1603.09246).

    (N, parts, in_dim) to logits (N, classes): a linear layer that the parts share (fc6) with a
    ReLU, then, on all parts side by side, another (fc7) with a ReLU, then a linear classifier.
    The two patches of Doersch et al. (2015, arXiv:1505.05192) are fused likewise.

    Args:
        in_dim: the backbone's ``feature_dim``.
        hidden_dim: width of the shared layer.
        parts: parts of an example.
        classes: number of classes.
        fused_dim: width of the layer on all parts; None for ``hidden_dim``.

    Raises:
        ValueError: a size below 1.

    >>> import torch
    >>> LateFusion(64, 32, parts=9, classes=100)(torch.randn(4, 9, 64)).shape
    torch.Size([4, 100])
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        parts: int,
        classes: int,
        fused_dim: int | None = None,
    ) -> None:
        super().__init__()
        fused_dim = hidden_dim if fused_dim is None else fused_dim
        if min(in_dim, hidden_dim, parts, classes, fused_dim) < 1:
            raise ValueError(
                "the sizes of a late fusion must be at least 1, not "
                f"{in_dim=}, {hidden_dim=}, {parts=}, {classes=}, {fused_dim=}"
            )
        self.shared = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU())
        self.fused = nn.Sequential(
            nn.Linear(parts * hidden_dim, fused_dim), nn.ReLU(), nn.Linear(fused_dim, classes)
        )

    def forward(self, parts: Tensor) -> Tensor:
        return self.fused(self.shared(parts).flatten(1))
