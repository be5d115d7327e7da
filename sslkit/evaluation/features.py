"""Frozen features, extracted once and shared by every protocol."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from sslkit.backbones import Backbone, Embedder
from sslkit.evaluation.batches import Batch, in_order
from sslkit.evaluation.processes import complete, largest, rank, share, together
from sslkit.training import evaluating

BLOCK = 32  # images that the view and the backbone see together, always


class Features(NamedTuple):
    """features: float32 (N, D); labels: int64, (N,) or (N, C); both on the CPU."""

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
    workers: int | None = None,
    progress: str | None = None,
    into: Features | None = None,
    distributed: bool = False,
) -> Features:
    """The features of a whole data set, in its order, without autocast.

    The backbone is put in evaluation mode for it, and back into the mode it had; its weights
    and BatchNorm statistics stay as they are, bit for bit.

    View and backbone always see 32 images together, the last ones filled up, so that features
    are the same bits at any ``batch_size`` and over any number of processes. They would not be
    otherwise: libraries choose their algorithms by shape. On a CPU a batch of one moved the
    features of ResNets by up to 7e-7 of their length, one of 7 those of NIN by 4e-7.

    Args:
        backbone: normalised images (N, 3, H, W) to features (N, D).
        dataset: gives (uint8 image (C, H, W), label), a label being an int or int64 (C,).
        view: (N, C, H, W) images to one normalised batch, such as ``EvaluationView``.
        batch_size: images that are loaded at a time, in whole blocks of 32.
        workers: processes that load images; by default one a core, at most 8, and none for
            images in memory.
        progress: what the progress bar says; None for no bar.
        into: written to and returned, instead of new tensors.
        distributed: every process of torch.distributed calls this; each extracts a part, and
            all of them return the whole. ``into`` is then memory that they share.

    Raises:
        ValueError: an empty data set, an image that cannot be read, a batch size below 1,
            features that hold NaN or infinity, or any of that in another process.

    >>> from sslkit.data import ArrayDataset
    >>> data = ArrayDataset(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.arange(5), None)
    >>> extract(nn.Flatten(), data, nn.Identity()).features.shape
    torch.Size([5, 48])
    """
    n = len(dataset)
    if not n or batch_size < 1:
        raise ValueError(f"extract takes 1 image or more, and a batch of them: {n}, {batch_size}")
    rows = share(n, BLOCK) if distributed else range(n)
    size = -(-batch_size // BLOCK) * BLOCK
    kind = torch.device(device).type
    first = next(backbone.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    result = into
    with together(device, distributed), evaluating(backbone), torch.autocast(kind, enabled=False):
        batches = in_order(dataset, rows, size, workers=workers, pin=kind == "cuda")
        for at, images, labels in _shown(batches, -(-len(rows) // size), progress):
            images = images.to(device, non_blocking=True)
            blocks = [_features(backbone, view, part, dtype) for part in images.split(BLOCK)]
            features = torch.cat(blocks).cpu()
            if not features.isfinite().all():
                raise ValueError(
                    "the backbone's features hold NaN or infinity: the weights are broken"
                )
            result = result or _empty(n, features.shape[1:], labels.shape[1:])
            result.features[at : at + len(features)] = features
            result.labels[at : at + len(features)] = labels
    if distributed and into is None:
        return _gathered(result, n, device)
    assert result is not None  # there is a row at least
    return result


def _features(backbone: nn.Module, view: nn.Module, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Of one block, filled up by its last image."""
    n = len(images)
    if n < BLOCK:
        images = torch.cat([images, images[-1:].expand(BLOCK - n, *images.shape[1:])])
    return backbone(view(images).to(dtype)).float()[:n]


def _empty(n: int, *shapes: Sequence[int]) -> Features:
    features, labels = shapes
    return Features(torch.empty(n, *features), torch.empty(n, *labels, dtype=torch.int64))


def _gathered(own: Features | None, n: int, device: torch.device | str) -> Features:
    """The rows of all processes, where each has its own and the last may have none."""
    shapes = [part.shape[1:] for part in own] if own else [(0,), ()]
    width, columns = (sum(shape) for shape in shapes)
    width, columns = largest(width, columns, device=device)
    whole = own or _empty(n, (width,), (columns,) if columns else ())
    for part in whole:
        complete(part, BLOCK, device)
    return whole


def _shown(batches: Iterator[Batch], n: int, progress: str | None) -> Iterator[Batch]:
    """A progress bar, of the first process; a log gets a line every half minute."""
    pause = 0.1 if sys.stderr.isatty() else 30.0
    silent = not progress or rank() > 0
    return tqdm(batches, progress, n, disable=silent, delay=2, mininterval=pause)


def extract_layers(
    backbone: Backbone, dataset: Dataset, view: nn.Module, layers: Sequence[str], **options: Any
) -> dict[str, Features]:
    """The features of several layers of a backbone, in one pass over a data set.

    A layer's map, (N, D, h, w), is averaged over the largest g x g grid whose D g^2 numbers are
    no more than the backbone's ``feature_dim``, so that wide maps of few channels are not judged by
    their channels' means alone, and no layer has more numbers than the last.

    Args:
        layers: names out of ``backbone.layers``. options: further ones of :func:`extract`.

    Returns:
        The features of each layer, by its name.

    Raises:
        ValueError: a layer that is not there, or as :func:`extract`.

    >>> from sslkit.backbones import ResNet9
    >>> from sslkit.data import ArrayDataset
    >>> data = ArrayDataset(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), torch.arange(5), None)
    >>> found = extract_layers(ResNet9(4), data, lambda x: x / 255, ["stem", "stage3"])
    >>> {name: tuple(layer.features.shape) for name, layer in found.items()}
    {'stem': (5, 16), 'stage3': (5, 32)}
    """
    pooled = PooledLayers(backbone, layers)
    found = extract(pooled, dataset, view, **options)
    widths = pooled.widths
    if options.get("distributed"):  # a process without a row has seen none
        widths = largest(*(widths or [0] * len(layers)), device=options.get("device", "cpu"))
    return by_layer(found, dict(zip(layers, widths, strict=True)))


def by_layer(found: Features, widths: dict[str, int]) -> dict[str, Features]:
    """The features of each layer, out of those of all of them side by side."""
    parts = found.features.split(list(widths.values()), dim=1)
    return {name: Features(part, found.labels) for name, part in zip(widths, parts, strict=True)}


def check_layers(backbone: Backbone, layers: Sequence[str]) -> None:
    """Raise ValueError unless every layer is one of the backbone's."""
    for name in layers:
        if name not in backbone.layers:
            kind = type(backbone).__name__
            raise ValueError(
                f"{kind} has no layer {name!r}; choose from {', '.join(backbone.layers)}"
            )


class PooledLayers(nn.Module):
    """Normalised images to the pooled maps of some layers, side by side.

    Attributes:
        widths: how many numbers each layer has, from the first call on.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[str]) -> None:
        if not layers:
            raise ValueError(f"name a layer or more, of {', '.join(backbone.layers)}")
        check_layers(backbone, layers)
        super().__init__()
        self.backbone = backbone
        under = backbone.backbone if isinstance(backbone, Embedder) else backbone
        self.most = under.feature_dim
        self.rows = [backbone.layers.index(name) for name in layers]
        self.widths: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        maps = self.backbone.feature_maps(images)
        pooled = []
        for row in self.rows:
            channels, *sides = maps[row].shape[1:]
            grid = math.isqrt(max(1, self.most // channels))
            pooled.append(F.adaptive_avg_pool2d(maps[row], min(grid, *sides)).flatten(1))
        self.widths = [part.shape[1] for part in pooled]
        return torch.cat(pooled, dim=1)
