"""One random view an image, as supervised networks are trained on."""

import torch
from kornia.augmentation.auto import RandAugment
from torch import Tensor

from sslkit.views.augment import Augment
from sslkit.views.base import View
from sslkit.views.transforms import Range, Statistics


class SupervisedView(View):
    """Crop and flip (Szegedy et al. 2015, arXiv:1409.4842; He et al. 2016, arXiv:1512.03385).

    (N, C, H, W) images become one tensor, (N, 3, size, size).

    Args:
        size: pixels of a side of the view.
        scale: least and greatest part of the image's area that a crop covers.
        normalize: see :class:`View`.

    Raises:
        ValueError: a value outside its range.

    >>> SupervisedView(32)(torch.rand(2, 3, 40, 50)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        size: int = 224,
        *,
        scale: Range = (0.08, 1.0),
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        super().__init__(size, normalize)
        self.augment = Augment(size, scale=scale, normalize=self.statistics)

    def make(self, images: Tensor) -> Tensor:
        return self.augment(images)

    def captions(self) -> tuple[list[str], ...]:
        return (self.augment.captions(),)


class RandAugmentView(View):
    """Crop, flip and RandAugment (Cubuk et al. 2020, arXiv:1909.13719), which is kornia's.

    (N, C, H, W) images become one tensor, (N, 3, size, size). kornia draws the operations once
    a batch, so the batch is cut into groups with operations of their own.

    Args:
        size: pixels of a side of the view.
        operations: how many of the 15 are applied in turn; the paper has 2 on ImageNet.
        magnitude: their strength, between 0 and 30; the paper has 9 for ResNet-50.
        scale: least and greatest part of the image's area that a crop covers.
        group: images that share operations; 1 is the paper's, and slowest.
        normalize: see :class:`View`.

    Raises:
        ValueError: a value outside its range.

    >>> RandAugmentView(32)(torch.rand(2, 3, 40, 50)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        size: int = 224,
        *,
        operations: int = 2,
        magnitude: int = 9,
        scale: Range = (0.08, 1.0),
        group: int = 8,
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        super().__init__(size, normalize)
        for name, value, most in (("operations", operations, 15), ("magnitude", magnitude, 29)):
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be 1 to {most}, not {value}")
        if group < 1:
            raise ValueError(f"group must be 1 image or more, not {group}")
        self.group = group
        self.augment = Augment(size, scale=scale)
        self.policy = RandAugment(operations, magnitude)

    def make(self, images: Tensor) -> Tensor:
        groups = self.augment(images).split(self.group)
        return self.normalized(torch.cat([self.policy(group) for group in groups]).clamp(0, 1))

    def captions(self) -> tuple[list[str], ...]:
        return (self.augment.captions(),)
