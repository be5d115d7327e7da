"""The lightness of every image, and the colours that were taken from it."""

import torch.nn.functional as F
from kornia.color import rgb_to_lab
from torch import Tensor

from sslkit.views.augment import Augment
from sslkit.views.base import Targeted, View
from sslkit.views.lab import lightness
from sslkit.views.transforms import Range, Statistics


class ColorizationView(View):
    """A crop's lightness to see, its ab to predict (Zhang et al. 2016, arXiv:1603.08511).

    Crop and flip; (N, C, H, W) images become one view, (N, 3, size, size), the grey image of the
    crop's Lab lightness, and targets, (N, 2, size/stride, size/stride), the crop's a and b, each
    the mean of stride x stride pixels. It is a and b that are averaged, not the colours before
    them: a predicted patch is to colour the full lightness, and their mean is what then errs
    least.

    Args:
        size: pixels of a side of the view.
        scale: least and greatest part of the image's area that a crop covers.
        stride: pixels of a side of a target; the paper has 4.
        normalize: see :class:`View`.

    Raises:
        ValueError: a value outside its range, or a stride that does not divide the size.

    >>> import torch
    >>> (grey,), ab = ColorizationView(32)(torch.rand(2, 3, 40, 50))
    >>> grey.shape, ab.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 2, 8, 8]))
    """

    def __init__(
        self,
        size: int = 224,
        *,
        scale: Range = (0.5, 1.0),
        stride: int = 4,
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        super().__init__(size, normalize)
        if not isinstance(stride, int) or stride < 1 or size % stride:
            raise ValueError(f"stride must divide size {size}, not {stride!r}")
        self.stride = stride
        self.augment = Augment(size, scale=scale)

    def make(self, images: Tensor) -> Targeted:
        crops = self.augment(images)
        return Targeted((self.normalized(lightness(crops)),), self.colours(crops))

    def colours(self, images: Tensor) -> Tensor:
        """(N, 3, size, size) in [0, 1] to the targets, (N, 2, size/stride, size/stride)."""
        return F.avg_pool2d(rgb_to_lab(images)[:, 1:], self.stride)

    def captions(self) -> tuple[list[str], ...]:
        return (self.augment.captions(),)
