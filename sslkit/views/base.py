"""What a view is: a module from a batch of images to the batches that an objective needs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from kornia.enhance import denormalize, normalize
from torch import Tensor, nn

NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}

Statistics = tuple[Sequence[float], Sequence[float]]  # mean and deviation of R, G and B


class Targeted(NamedTuple):
    """What the view of a pretext task returns: views, and the targets drawn with them."""

    views: tuple[Tensor, ...]
    targets: Tensor


class View(nn.Module, ABC):
    """Images to views, without gradient and in float32 whatever the trainer's precision.

    A subclass writes ``make``. Called with (N, C, H, W) images, uint8 or float in [0, 1], of
    one or three channels, it returns what ``make`` returns.

    Args:
        size: height and width of the views in pixels.
        normalize: the mean and standard deviation that the views end with, by name (a key of
            ``NORMALIZATIONS``) or as two sequences of 3; None leaves them in [0, 1].

    Raises:
        ValueError: a size below 1, or a normalisation that is not there.
    """

    def __init__(self, size: int, normalize: str | Statistics | None = "imagenet") -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, not {size}")
        if isinstance(normalize, str) and normalize not in NORMALIZATIONS:
            raise ValueError(
                f"no normalisation named {normalize!r}; choose from {', '.join(NORMALIZATIONS)}"
            )
        self.size, self.normalize = size, normalize

    @abstractmethod
    def make(self, images: Tensor) -> Any:
        """(N, 3, H, W) float32 in [0, 1] to a tuple of views, a Targeted, or one tensor."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """(N, C, H, W), uint8 or float in [0, 1], to what ``make`` returns."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
            return self.make(images.expand(-1, 3, -1, -1))

    def normalized(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], with the mean taken off and the deviation divided out."""
        statistics = self._statistics(images)
        return normalize(images, *statistics) if statistics else images

    def denormalize(self, images: Tensor) -> Tensor:
        """The inverse of ``normalized``: (N, 3, H, W) back to [0, 1]."""
        statistics = self._statistics(images)
        return denormalize(images, *statistics) if statistics else images

    def _statistics(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.normalize is None:
            return None
        given = self.normalize
        mean, std = NORMALIZATIONS[given] if isinstance(given, str) else given
        return images.new_tensor(mean), images.new_tensor(std)
