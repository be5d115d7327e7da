"""The deterministic view that features are taken from (Chen et al. 2020, appendix B.8)."""

from torch import Tensor
from torchvision.transforms.v2.functional import InterpolationMode, center_crop, resize

from sslkit.views.base import View, unit
from sslkit.views.lab import lightness
from sslkit.views.transforms import Statistics


class EvaluationView(View):
    """Shorter side to ``size`` (bicubic, antialiased), centre crop, normalise.

    (N, C, H, W) to one tensor, (N, 3, size, size). Images of that size already are only
    normalised. Resizing is torchvision's, whose antialiasing matches Pillow's; kornia blurs
    before it resizes, which moves pixels by 0.05 on average.

    Args:
        size: pixels of a side of the view.
        normalize: see :class:`View`.
        grayscale: show the Lab lightness alone, to backbones that saw nothing else.

    >>> import torch
    >>> EvaluationView(32)(torch.zeros(2, 1, 48, 64, dtype=torch.uint8)).shape
    torch.Size([2, 3, 32, 32])
    """

    random = False

    def __init__(
        self,
        size: int,
        normalize: str | Statistics | None = "imagenet",
        *,
        grayscale: bool = False,
    ) -> None:
        super().__init__(size, normalize)
        self.grayscale = grayscale

    def make(self, images: Tensor) -> Tensor:
        images = unit(images)
        if images.shape[-2:] != (self.size, self.size):
            images = resize(images, [self.size], InterpolationMode.BICUBIC, antialias=True)
            images = center_crop(images, [self.size, self.size]).clamp(0, 1)
        return self.normalized(lightness(images) if self.grayscale else images)
