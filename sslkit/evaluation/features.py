"""Frozen features, extracted once and shared by every protocol."""

import sys
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm

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
