"""The four rotations of every image, and which one each is."""

import torch
from torch import Tensor

from sslkit.views.augment import Augment
from sslkit.views.base import Targeted, View
from sslkit.views.transforms import Range, Statistics


class RotationView(View):
    """Every image turned by 0, 90, 180 and 270 degrees (Gidaris et al. 2018, arXiv:1803.07728).

    Crop, flip, then all four turns of the crop in one batch, as the paper found best: (N, C, H, W)
    images become one view, (4N, 3, size, size), in which turn k of image i is at k N + i, and
    targets, (4N,), the number k of quarter turns against the clock. Turns are transposes and
    flips: nothing is resampled after the crop, so neither borders nor interpolation tell them.

    Args:
        size: pixels of a side of the view.
        scale: least and greatest part of the image's area that a crop covers.
        normalize: see :class:`View`.

    Raises:
        ValueError: a value outside its range.

    >>> views, targets = RotationView(32)(torch.rand(2, 3, 40, 50))
    >>> views[0].shape, targets.tolist()
    (torch.Size([8, 3, 32, 32]), [0, 0, 1, 1, 2, 2, 3, 3])
    """

    def __init__(
        self,
        size: int = 224,
        *,
        scale: Range = (0.5, 1.0),
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        super().__init__(size, normalize)
        self.augment = Augment(size, scale=scale, normalize=self.statistics)

    def make(self, images: Tensor) -> Targeted:
        upright = self.augment(images)
        turned = torch.cat([upright.rot90(k, (2, 3)) for k in range(4)])
        targets = torch.arange(4, device=images.device).repeat_interleave(len(images))
        return Targeted((turned,), targets)

    def captions(self) -> tuple[list[str], ...]:
        texts = self.augment.captions()
        return ([f"{90 * k} degrees\n{text}" for k in range(4) for text in texts],)
