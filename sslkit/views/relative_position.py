"""Pairs of neighbouring patches, and where the second lies from the first."""

from typing import Literal, get_args

import torch
from torch import Tensor

from sslkit.views.base import Targeted, View, unit
from sslkit.views.patches import check_pixels, cut, random_place
from sslkit.views.transforms import Statistics

Color = Literal["projection", "drop", "none"]
NEIGHBOURS = {  # name: row and column of the 3 x 3 arrangement; the targets are their order
    "above left": (0, 0),
    "above": (0, 1),
    "above right": (0, 2),
    "left": (1, 0),
    "right": (1, 2),
    "below left": (2, 0),
    "below": (2, 1),
    "below right": (2, 2),
}


class RelativePositionView(View):
    """A patch and one of its eight neighbours (Doersch et al. 2015, arXiv:1505.05192).

    Patches lie three by three with a gap between them, the arrangement anywhere in the image and
    each patch moved at random: neither lines that go on nor a fixed distance tell the place.
    (N, C, H, W) images, at the resolution they have, become the middle patches and the
    neighbours, each (pairs N, 3, patch, patch), with pair k of image i at k N + i, and targets,
    (pairs N,), 0 to 7 row by row without the middle. Lenses magnify colours differently, which
    tells where in the image a patch was: ``color`` says what is done against it. The paper's
    pixelation of some patches is left out.

    Args:
        size: pixels of a side of the images that features are evaluated on; none of the patches.
        patch: pixels of a side of a patch; the paper has 96, with a gap of 48 and a jitter of 7.
        gap: pixels between neighbouring patches.
        jitter: pixels that a patch is moved at most, up or down and left or right.
        pairs: different neighbours of an image, 1 to 8, each with a middle patch drawn anew.
        color: "projection" (:func:`project`), "drop" (:func:`drop_colors`) or "none".
        normalize: see :class:`View`.

    Raises:
        ValueError: a value outside its range; of a call, images of a side less than
            3 patch + 2 gap + 2 jitter.

    >>> view = RelativePositionView(32, patch=8, gap=2, jitter=1, pairs=2)
    >>> (first, second), targets = view(torch.rand(5, 3, 32, 32))
    >>> first.shape, second.shape, targets.shape
    (torch.Size([10, 3, 8, 8]), torch.Size([10, 3, 8, 8]), torch.Size([10]))
    """

    def __init__(
        self,
        size: int = 224,
        *,
        patch: int = 96,
        gap: int = 48,
        jitter: int = 7,
        pairs: int = 1,
        color: Color = "projection",
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        super().__init__(size, normalize)
        check_pixels(1, patch=patch)
        check_pixels(0, gap=gap, jitter=jitter)
        if not isinstance(pairs, int) or not 1 <= pairs <= len(NEIGHBOURS):
            raise ValueError(f"pairs must be 1 to {len(NEIGHBOURS)}, not {pairs!r}")
        if color not in get_args(Color):
            raise ValueError(f"color must be one of {', '.join(get_args(Color))}, not {color!r}")
        self.patch, self.gap, self.jitter = patch, gap, jitter
        self.pairs, self.color = pairs, color
        self.drawn: list[int] = []

    def make(self, images: Tensor) -> Targeted:
        n, jitter = len(images) * self.pairs, self.jitter
        step = self.patch + self.gap
        what = f"3 x 3 patches of {self.patch} with gap {self.gap} and jitter {jitter}"
        place = random_place(images, self.patch + 2 * step + 2 * jitter, n, what)
        targets = torch.rand(len(images), len(NEIGHBOURS)).argsort(1)[:, : self.pairs].T.flatten()
        self.drawn = targets.tolist()
        cells = torch.tensor([list(NEIGHBOURS.values())])[0, targets]  # (n, 2)
        both = torch.cat((torch.ones_like(cells), cells))  # the middle patches, then the others
        corner = torch.stack(place, 1).repeat(2, 1) + step * both
        top, left = (corner + torch.randint(2 * jitter + 1, (2 * n, 2))).split(1, 1)
        index = torch.arange(len(images)).repeat(2 * self.pairs)
        patches = unit(cut(images, index, top, left, self.patch))
        if self.color == "projection":
            patches = project(patches, self._centre(patches))
        elif self.color == "drop":
            patches = drop_colors(patches, self._centre(patches))
        first, second = self.normalized(patches).chunk(2)
        return Targeted((first, second), targets.to(images.device))

    def _centre(self, patches: Tensor) -> Tensor:
        """The colour that normalisation takes off, or middle grey: (3, 1, 1)."""
        mean = self.statistics[0] if self.statistics else (0.5, 0.5, 0.5)
        return torch.tensor(mean, dtype=torch.float32).to(patches.device)[:, None, None]

    def captions(self) -> tuple[list[str], ...]:
        names = list(NEIGHBOURS)
        return ["middle"] * len(self.drawn), [names[target] for target in self.drawn]


def project(images: Tensor, centre: Tensor) -> Tensor:
    """Take the axis from green to magenta out of every pixel (Doersch et al. 2015, section 3.1).

    The matrix is I - a a' / a'a with a = (-1, 2, -1). It turns a difference of green alone into
    one of brightness, so that green displaced against red and blue leaves no coloured fringe.

    Args:
        images: (N, 3, H, W) float, before the channels are scaled.
        centre: (3, 1, 1), a colour that stays as it is.

    >>> green = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]
    >>> project(green, torch.zeros(3, 1, 1)).flatten()
    tensor([0.3333, 0.3333, 0.3333])
    """
    axis = torch.tensor((-1.0, 2.0, -1.0)).to(images.device)[:, None, None]
    return images - axis * ((images - centre) * axis).sum(1, keepdim=True) / 6


def drop_colors(images: Tensor, centre: Tensor) -> Tensor:
    """Leave each image one channel, drawn at random (Doersch et al. 2015, section 3.1).

    The other two become Gaussian noise about the centre, with a hundredth of the deviation of
    the one that is left.

    Args:
        images: (N, 3, H, W) float.
        centre: (3, 1, 1), what stands for no signal: zero once the views are normalised.

    >>> images = torch.rand(4, 3, 8, 8)
    >>> (drop_colors(images, torch.full((3, 1, 1), 0.5)) == images).all((2, 3)).sum(1)
    tensor([1, 1, 1, 1])
    """
    kept = torch.randint(3, (len(images), 1, 1, 1)).to(images.device)
    deviation = images.take_along_dim(kept, 1).std((2, 3), correction=0, keepdim=True)
    noise = centre + 0.01 * deviation * torch.randn(images.shape).to(images.device)
    return torch.where(kept == torch.arange(3, device=images.device)[:, None, None], images, noise)
