"""One random view an image, as supervised networks are trained on."""

from typing import Any, Self

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
        flip: probability of a horizontal flip; 0 for characters, which it makes others.
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
        flip: float = 0.5,
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        super().__init__(size, normalize)
        self.augment = Augment(size, scale=scale, flip=flip, normalize=self.statistics)

    def make(self, images: Tensor) -> Tensor:
        return self.augment(images)

    def captions(self) -> tuple[list[str], ...]:
        return (self.augment.captions(),)


class RandAugmentView(View):
    """Crop, flip and RandAugment (Cubuk et al. 2020, arXiv:1909.13719), which is kornia's.

    (N, C, H, W) images become one tensor, (N, 3, size, size). kornia draws the operations once
    a batch, so the batch is cut into groups with operations of their own; unlike the paper it
    draws without replacement, and never the identity. An image with a NaN becomes NaN.

    Args:
        size: pixels of a side of the view.
        operations: how many of the 15 are applied in turn; the paper has 2 on ImageNet.
        magnitude: their strength, between 0 and 30; the paper has 9 for ResNet-50.
        scale: least and greatest part of the image's area that a crop covers.
        group: images that share operations; 1, the slowest, draws them for each image.
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
        self.drawn: list[list[str]] = []

    def make(self, images: Tensor) -> Tensor:
        views = self.augment(images)
        broken = views.isnan().flatten(1).any(1)  # which kornia refuses, for all of the group
        groups = torch.where(broken[:, None, None, None], 0.0, views).split(self.group)
        self.drawn, made = [], []
        for group in groups:
            made.append(self.policy(group))
            operations: Any = self.policy._params
            names = [item.data[0].name.partition("_")[0] for item in operations]
            self.drawn += [names] * len(group)
        views = torch.where(broken[:, None, None, None], torch.nan, torch.cat(made).clamp(0, 1))
        return self.normalized(views)

    def captions(self) -> tuple[list[str], ...]:
        drawn = zip(self.augment.captions(), self.drawn, strict=True)
        return (["\n".join([caption, *names]) for caption, names in drawn],)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Stay as it is where a model moves: kornia would draw in the model's precision."""
        return self
