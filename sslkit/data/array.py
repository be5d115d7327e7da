"""Images in memory: the form of every small data set."""

import copy
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset


class ArrayDataset(Dataset):
    """Images held in memory.

    Args:
        images: uint8 (N, C, H, W), values in [0, 255].
        labels: int64 (N,), or None for an unlabelled set.
        classes: the name of each label, or None.

    Raises:
        ValueError: if shapes, types or labels do not fit each other.

    >>> data = ArrayDataset(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([1, 0]))
    >>> image, label = data[0]
    >>> len(data), image.shape, label
    (2, torch.Size([3, 4, 4]), 1)
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 (N, C, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        if labels is not None:
            if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
                raise ValueError(
                    f"labels must be int64 ({len(images)},), "
                    f"got {labels.dtype} {tuple(labels.shape)}"
                )
            if classes is not None and ((labels < 0) | (labels >= len(classes))).any():
                raise ValueError(f"labels must be in [0, {len(classes)}), one a class")
        self.images, self.labels = images, labels
        self.classes = None if classes is None else tuple(classes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """The image, uint8 (C, H, W), and its label, -1 in an unlabelled set."""
        return self.images[index], -1 if self.labels is None else int(self.labels[index])

    def to(self, device: torch.device | str) -> "ArrayDataset":
        """The same set with its tensors on another device."""
        moved = copy.copy(self)
        moved.images = self.images.to(device)
        moved.labels = None if self.labels is None else self.labels.to(device)
        return moved
