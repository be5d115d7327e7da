"""Frozen features, extracted once and shared by every protocol."""

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm

from sslkit.backbones import Backbone
from sslkit.data import ArrayDataset


class Features(NamedTuple):
    """features: float32 (N, D); labels: int64 (N,); both on the CPU."""

    features: Tensor
    labels: Tensor


@torch.no_grad()
def extract(
    backbone: nn.Module,
    dataset: Dataset,
    view: nn.Module,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    workers: int = 0,
    progress: str | None = None,
) -> Features:
    """The features of a whole data set, in its order.

    The backbone is put in evaluation mode for it, and back into the mode it had; its weights
    and BatchNorm statistics stay as they are, bit for bit.

    Args:
        backbone: normalised images (N, 3, H, W) to features (N, D).
        dataset: gives (uint8 image (C, H, W), label).
        view: (N, C, H, W) images to one normalised batch, such as ``EvaluationView``.
        progress: what the progress bar says; None for no bar.

    Raises:
        ValueError: features that hold NaN or infinity.

    >>> data = ArrayDataset(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.arange(5), None)
    >>> extract(nn.Flatten(), data, nn.Identity()).features.shape
    torch.Size([5, 48])
    """
    if isinstance(dataset, ArrayDataset):
        labels = torch.full((len(dataset),), -1) if dataset.labels is None else dataset.labels
        dataset, workers = TensorDataset(dataset.images, labels), 0
    # Its own generator: a DataLoader draws from torch's, and training may be going on.
    loader = DataLoader(dataset, batch_size, num_workers=workers, generator=torch.Generator())
    first = next(backbone.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    features, labels = [], []
    try:
        pause = 0.1 if sys.stderr.isatty() else 30.0  # a log gets a line every half minute
        for images, batch_labels in tqdm(
            loader, progress, disable=not progress, delay=2, mininterval=pause
        ):
            batch = backbone(view(images.to(device)).to(dtype))
            features.append(batch.float().cpu())
            labels.append(batch_labels.cpu())
    finally:
        for module, mode in modes.items():
            module.training = mode
    result = Features(torch.cat(features), torch.cat(labels))
    if not result.features.isfinite().all():
        raise ValueError("the backbone's features hold NaN or infinity: the weights are broken")
    return result


def extract_layers(
    backbone: Backbone, dataset: Dataset, view: nn.Module, layers: Sequence[str], **options: Any
) -> dict[str, Features]:
    """The features of several layers of a backbone, in one pass over a data set.

    A layer's map, (N, D, h, w), is averaged over the largest g x g grid whose D g^2 numbers are
    no more than ``backbone.feature_dim``, so that wide maps of few channels are not judged by
    their channels' means alone, and no layer has more numbers than the last.

    Args:
        layers: names out of ``backbone.layers``. options: further ones of :func:`extract`.

    Returns:
        The features of each layer, by its name.

    Raises:
        ValueError: a layer that is not there, or as :func:`extract`.

    >>> from sslkit.backbones import ResNet9
    >>> data = ArrayDataset(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), torch.arange(5), None)
    >>> found = extract_layers(ResNet9(4), data, lambda x: x / 255, ["stem", "stage3"])
    >>> {name: tuple(layer.features.shape) for name, layer in found.items()}
    {'stem': (5, 16), 'stage3': (5, 32)}
    """
    check_layers(backbone, layers)
    pooled = _PooledLayers(backbone, layers)
    features, labels = extract(pooled, dataset, view, **options)
    parts = features.split(pooled.widths, dim=1)
    return {name: Features(part, labels) for name, part in zip(layers, parts, strict=True)}


def check_layers(backbone: Backbone, layers: Sequence[str]) -> None:
    """Raise ValueError unless every layer is one of the backbone's."""
    for name in layers:
        if name not in backbone.layers:
            kind = type(backbone).__name__
            raise ValueError(
                f"{kind} has no layer {name!r}; choose from {', '.join(backbone.layers)}"
            )


class _PooledLayers(nn.Module):
    """Normalised images to the pooled maps of some layers, side by side."""

    def __init__(self, backbone: Backbone, layers: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.rows = [backbone.layers.index(name) for name in layers]
        self.widths: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone.feature_maps(images)
        pooled = []
        for row in self.rows:
            channels, *sides = maps[row].shape[1:]
            grid = math.isqrt(max(1, self.backbone.feature_dim // channels))
            pooled.append(F.adaptive_avg_pool2d(maps[row], min(grid, *sides)).flatten(1))
        self.widths = [part.shape[1] for part in pooled]
        return torch.cat(pooled, dim=1)
