"""The augmentations of SimCLR (Chen et al. 2020, arXiv:2002.05709, appendix A)."""

from kornia.augmentation import (
    ColorJitter,
    RandomGaussianBlur,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
)
from torch import Tensor, nn

from sslkit.views.base import View


class SimCLRViews(View):
    """Two random views an image: crop, flip, colour jitter, grayscale, blur.

    (N, C, H, W) images, uint8 or float in [0, 1], become two batches (N, 3, size, size). The
    paper has jitter 1 and blur on ImageNet, jitter 0.5 and no blur on CIFAR-10 (appendix B.9).

    Args:
        size: pixels of a side of the views.
        scale: least and greatest part of the image's area that a crop covers.
        jitter: colour strength s: brightness, contrast and saturation 0.8 s, hue 0.2 s,
            applied to 80 % of the views.
        grayscale: probability that a view loses its colour.
        blur: blur half of the views, kernel a tenth of the size, sigma 0.1 to 2 pixels.
        normalize: see :class:`View`.

    Raises:
        ValueError: a value outside its range.

    >>> import torch
    >>> view0, view1 = SimCLRViews(32, jitter=0.5, blur=False)(torch.rand(4, 3, 40, 50))
    >>> view0.shape, view1.shape
    (torch.Size([4, 3, 32, 32]), torch.Size([4, 3, 32, 32]))
    """

    def __init__(
        self,
        size: int = 224,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        jitter: float = 1.0,
        grayscale: float = 0.2,
        blur: bool = True,
        normalize: str | None = "imagenet",
    ) -> None:
        super().__init__(size, normalize)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be 0 < low <= high <= 1, not {scale}")
        if not 0 <= jitter <= 1.25:
            raise ValueError(f"jitter must be between 0 and 1.25, not {jitter}")
        if not 0 <= grayscale <= 1:
            raise ValueError(f"grayscale must be a probability, not {grayscale}")
        s = jitter
        steps: list[nn.Module] = [
            RandomResizedCrop((size, size), scale, cropping_mode="resample", align_corners=False),
            RandomHorizontalFlip(),
        ]
        if s:
            steps.append(ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s, p=0.8))
        steps.append(RandomGrayscale(p=grayscale))
        if blur:
            kernel = size // 20 * 2 + 1
            steps.append(RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=0.5))
        self.pipeline = nn.Sequential(*steps)

    def make(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self._view(images), self._view(images)

    def _view(self, images: Tensor) -> Tensor:
        return self.normalized(self.pipeline(images).clamp(0, 1))
