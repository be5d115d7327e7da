"""Two large views an image and several small ones (Caron et al. 2020, arXiv:2006.09882)."""

from sslkit.views.simclr import AugmentedViews
from sslkit.views.transforms import Statistics


def _check(local_size: int, local_views: int) -> None:
    if local_size < 1 or local_views < 0:
        raise ValueError(
            "local_size must be 1 pixel or more and local_views 0 or more, not "
            f"{local_size} and {local_views}"
        )


class SwAVViews(AugmentedViews):
    """The multi-crop of SwAV (Caron et al. 2020, arXiv:2006.09882, and its code).

    Two views of 0.14 to 1 of the area and six small ones of 0.05 to 0.14; all with flip, the
    colours of SimCLR (jitter 0.8, 0.8, 0.8, hue 0.2 in 80 %, grayscale in 20 %), and blur in
    half of them (the kernel is a tenth of the size, where the code's is as wide as it needs).

    Args:
        size: pixels of a side of the two large views.
        local_size: pixels of a side of the small ones.
        local_views: how many of those.
        normalize: see :class:`View`.

    Raises:
        ValueError: a size below 1 or fewer than no views.

    >>> import torch
    >>> views = SwAVViews(32, local_size=16, local_views=3)(torch.rand(2, 3, 40, 40))
    >>> [view.shape[-1] for view in views]
    [32, 32, 16, 16, 16]
    """

    def __init__(
        self,
        size: int = 224,
        *,
        local_size: int = 96,
        local_views: int = 6,
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        _check(local_size, local_views)
        both = {"jitter": (0.8, 0.8, 0.8, 0.2), "grayscale": 0.2, "blur": 0.5}
        large = {**both, "scale": (0.14, 1.0)}
        small = {**both, "scale": (0.05, 0.14), "size": local_size}
        super().__init__(large, large, *[small] * local_views, size=size, normalize=normalize)


class DINOViews(AugmentedViews):
    """The multi-crop of DINO (Caron et al. 2021, arXiv:2104.14294, and its code).

    Two views of 0.4 to 1 of the area and eight small ones of 0.05 to 0.4, all bicubic, with
    flip and the colours of BYOL. The first is blurred; the second in 10 %, and solarized in
    20 %; the small ones are blurred in half. The kernel is a tenth of the size, where the code's
    is as wide as it needs.

    Args:
        size: pixels of a side of the two large views.
        local_size: pixels of a side of the small ones.
        local_views: how many of those.
        normalize: see :class:`View`.

    Raises:
        ValueError: a size below 1 or fewer than no views.

    >>> import torch
    >>> len(DINOViews(32, local_size=16)(torch.rand(2, 3, 40, 40)))
    10
    """

    def __init__(
        self,
        size: int = 224,
        *,
        local_size: int = 96,
        local_views: int = 8,
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        _check(local_size, local_views)
        both = {"jitter": (0.4, 0.4, 0.2, 0.1), "grayscale": 0.2, "resample": "bicubic"}
        large = {**both, "scale": (0.4, 1.0)}
        first, second = {**large, "blur": 1.0}, {**large, "blur": 0.1, "solarize": 0.2}
        small = {**both, "scale": (0.05, 0.4), "size": local_size, "blur": 0.5}
        super().__init__(first, second, *[small] * local_views, size=size, normalize=normalize)
