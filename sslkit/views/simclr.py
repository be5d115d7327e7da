"""Two random views an image, as SimCLR, MoCo v2, BYOL and Barlow Twins make them."""

from typing import Any

from torch import Tensor, nn

from sslkit.views.augment import Augment
from sslkit.views.base import View
from sslkit.views.transforms import Range, Statistics, check_probability


class AugmentedViews(View):
    """One random view an image for each recipe, a tuple of (N, 3, s, s) batches.

    Args:
        recipes: the arguments of an :class:`Augment` for each view; ``size`` where none is said.
        size: pixels of a side of the views.
        normalize: see :class:`View`.

    Raises:
        ValueError: a value outside its range.

    >>> import torch
    >>> views = AugmentedViews({}, {"blur": 0.5, "size": 20}, size=32)
    >>> [tuple(view.shape) for view in views(torch.rand(4, 3, 40, 50))]
    [(4, 3, 32, 32), (4, 3, 20, 20)]
    """

    def __init__(
        self,
        *recipes: dict[str, Any],
        size: int = 224,
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        super().__init__(size, normalize)
        if not recipes:
            raise ValueError("views need at least one recipe, not none")
        self.augments: Any = nn.ModuleList(
            Augment(**{"size": size, **recipe}, normalize=self.statistics) for recipe in recipes
        )

    def make(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(augment(images) for augment in self.augments)

    def captions(self) -> tuple[list[str], ...]:
        return tuple(augment.captions() for augment in self.augments)


class SimCLRViews(AugmentedViews):
    """The two views of SimCLR (Chen et al. 2020, arXiv:2002.05709, appendix A).

    Crop, flip, colour jitter (80 % of the views), grayscale, and blur (half of the views, sigma
    0.1 to 2 pixels, the kernel a tenth of the size). The paper has jitter 1 and blur on
    ImageNet, jitter 0.5 and no blur on CIFAR-10 (appendix B.9). Crops are bilinear, as in the
    PyTorch versions; the authors' code resizes bicubically.

    Args:
        size: pixels of a side of the views.
        scale: least and greatest part of the image's area that a crop covers.
        flip: probability of a horizontal flip; 0 for characters, which it makes others.
        jitter: colour strength s: brightness, contrast and saturation 0.8 s, hue 0.2 s.
        grayscale: probability that a view loses its colour.
        blur: whether half of the views are blurred.
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
        scale: Range = (0.08, 1.0),
        flip: float = 0.5,
        jitter: float = 1.0,
        grayscale: float = 0.2,
        blur: bool = True,
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        if not isinstance(jitter, int | float) or not 0 <= jitter <= 2.5:
            raise ValueError(f"jitter must be between 0 and 2.5, not {jitter!r}")
        s = jitter
        recipe = {
            "scale": scale,
            "flip": flip,
            "jitter": (0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s),
            "grayscale": check_probability("grayscale", grayscale),
            "blur": 0.5 * blur,
        }
        super().__init__(recipe, recipe, size=size, normalize=normalize)


_INSTDISC: dict[str, Any] = {
    "scale": (0.2, 1.0),
    "jitter": (0.4, 0.4, 0.4, 0.4),
    "jitter_p": 1.0,
    "grayscale": 0.2,
}


class InstDiscView(AugmentedViews):
    """The view of instance discrimination (Wu et al. 2018, arXiv:1805.01978, and its code).

    One view: a crop of 0.2 to 1 of the area, flip, colour jitter of 0.4 in all four factors,
    always, and grayscale (20 %).

    Args:
        size: pixels of a side of the view.
        normalize: see :class:`View`.

    >>> import torch
    >>> [tuple(view.shape) for view in InstDiscView(32)(torch.rand(2, 3, 40, 40))]
    [(2, 3, 32, 32)]
    """

    def __init__(self, size: int = 224, *, normalize: str | Statistics | None = "imagenet") -> None:
        super().__init__(_INSTDISC, size=size, normalize=normalize)


class MoCoV1Views(AugmentedViews):
    """The two views of MoCo (He et al. 2020, arXiv:1911.05722), drawn as :class:`InstDiscView`.

    Args:
        size: pixels of a side of the views.
        normalize: see :class:`View`.

    >>> import torch
    >>> len(MoCoV1Views(32)(torch.rand(2, 3, 40, 40)))
    2
    """

    def __init__(self, size: int = 224, *, normalize: str | Statistics | None = "imagenet") -> None:
        super().__init__(_INSTDISC, _INSTDISC, size=size, normalize=normalize)


class MoCoV2Views(AugmentedViews):
    """The two views of MoCo v2 (Chen et al. 2020, arXiv:2003.04297, and its code).

    Crops of 0.2 to 1 of the area, flip, colour jitter (0.4, 0.4, 0.4, hue 0.1; 80 % of the
    views), grayscale (20 %), blur (half of the views, sigma 0.1 to 2 pixels; the kernel is a
    tenth of the size, where the code's is as wide as it needs).

    Args:
        size: pixels of a side of the views.
        normalize: see :class:`View`.

    >>> import torch
    >>> len(MoCoV2Views(32)(torch.rand(2, 3, 40, 40)))
    2
    """

    def __init__(self, size: int = 224, *, normalize: str | Statistics | None = "imagenet") -> None:
        recipe = {
            "scale": (0.2, 1.0),
            "jitter": (0.4, 0.4, 0.4, 0.1),
            "grayscale": 0.2,
            "blur": 0.5,
        }
        super().__init__(recipe, recipe, size=size, normalize=normalize)


class BYOLViews(AugmentedViews):
    """The two views of BYOL, which differ (Grill et al. 2020, arXiv:2006.07733, table 6).

    Both: bicubic crops of 0.08 to 1 of the area, flip, colour jitter (0.4, 0.4, saturation 0.2,
    hue 0.1; 80 %), grayscale (20 %), sigma 0.1 to 2 pixels, the kernel a tenth of the size. The
    first is always blurred and never solarized; the second is blurred in 10 % and solarized in
    20 %. Brightness multiplies, as in the other presets; the authors' code adds.

    Args:
        size: pixels of a side of the views.
        normalize: see :class:`View`.

    >>> import torch
    >>> len(BYOLViews(32)(torch.rand(2, 3, 40, 40)))
    2
    """

    def __init__(self, size: int = 224, *, normalize: str | Statistics | None = "imagenet") -> None:
        both = {"jitter": (0.4, 0.4, 0.2, 0.1), "grayscale": 0.2, "resample": "bicubic"}
        first, second = {**both, "blur": 1.0}, {**both, "blur": 0.1, "solarize": 0.2}
        super().__init__(first, second, size=size, normalize=normalize)


class BarlowTwinsViews(BYOLViews):
    """The two views of Barlow Twins, those of BYOL (Zbontar et al. 2021, arXiv:2103.03230).

    >>> import torch
    >>> len(BarlowTwinsViews(32)(torch.rand(2, 3, 40, 40)))
    2
    """
