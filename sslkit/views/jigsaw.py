"""Nine tiles of every image in disorder, and which disorder it is."""

from functools import cache
from itertools import permutations as orders
from math import factorial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sslkit.views.base import Targeted, View, unit
from sslkit.views.functional import LUMA
from sslkit.views.patches import check_pixels, cut, random_place
from sslkit.views.transforms import Statistics, check_probability

FLAT = 1e-3  # the least deviation of a tile that is divided out: a quarter of a step of 255


class JigsawView(View):
    """Nine tiles shuffled by one permutation of a set (Noroozi and Favaro 2016, arXiv:1603.09246).

    Three by three cells lie anywhere in the image, at the resolution it has; in each, a tile at a
    random place. (N, C, H, W) images become one view, (N, 9, 3, tile, tile), row by row, and
    targets, (N,), the number of the permutation p: at place j stands the tile of cell p[j].
    Against shortcuts each channel of a tile loses its mean and deviation, the channels of a tile
    are moved against each other, and some images are grey. That dims the fringes of lenses which
    magnify colours differently; only ``grayscale`` 1 removes them.

    Args:
        size: pixels of a side of the images that features are evaluated on; none of the tiles.
        tile: pixels of a side of a tile; the paper has 64, in cells of 75.
        cell: pixels of a side of a cell.
        permutations: size of the set, 2 to 9!; the paper has 100 to 1000.
        grayscale: probability that an image loses its colour.
        channel_jitter: pixels that each channel of a tile is moved at most inside its cell.
        normalize_tiles: whether tiles are normalised by their own mean and deviation, channel by
            channel, and not by ``normalize``, which then is that of evaluation alone.
        normalize: see :class:`View`.

    Raises:
        ValueError: a value outside its range; of a call, images of a side less than 3 cell.

    >>> view = JigsawView(32, tile=8, cell=10, permutations=24)
    >>> (tiles,), targets = view(torch.rand(4, 3, 32, 32))
    >>> tiles.shape, targets.shape
    (torch.Size([4, 9, 3, 8, 8]), torch.Size([4]))
    """

    def __init__(
        self,
        size: int = 224,
        *,
        tile: int = 64,
        cell: int = 75,
        permutations: int = 100,
        grayscale: float = 0.3,
        channel_jitter: int = 2,
        normalize_tiles: bool = True,
        normalize: str | Statistics | None = "imagenet",
    ) -> None:
        super().__init__(size, normalize)
        check_pixels(1, tile=tile, cell=cell)
        check_pixels(0, channel_jitter=channel_jitter)
        if tile > cell:
            raise ValueError(f"a tile must fit into its cell of {cell} pixels, not be {tile}")
        if channel_jitter > cell - tile:
            raise ValueError(
                f"channel_jitter must be at most the {cell - tile} pixels that a cell has to "
                f"spare, not {channel_jitter}"
            )
        self.tile, self.cell, self.channel_jitter = tile, cell, channel_jitter
        self.grayscale = check_probability("grayscale", grayscale)
        self.normalize_tiles = normalize_tiles
        self.permutations = permutation_set(permutations)
        self.drawn: list[str] = []

    def make(self, images: Tensor) -> Targeted:
        n, room = len(images), self.cell - self.tile
        what = f"3 x 3 cells of {self.cell}"
        place = torch.stack(random_place(images, 3 * self.cell, n, what), 1)
        targets = torch.randint(len(self.permutations), (n,))
        grey = torch.rand(n) < self.grayscale
        shown = self.permutations[targets]  # (N, 9)
        cells = torch.stack((shown // 3, shown % 3), 2)  # row and column, (N, 9, 2)
        offset = torch.randint(room + 1, (n, 9, 1, 2))
        moved = torch.randint(-self.channel_jitter, self.channel_jitter + 1, (n, 9, 3, 2))
        offset = (offset + moved * ~grey.view(n, 1, 1, 1)).clamp(0, room)
        corner = place.view(n, 1, 1, 2) + self.cell * cells[:, :, None] + offset
        top, left = corner.flatten(0, 1).unbind(2)  # (9 N, 3)
        index = torch.arange(n).repeat_interleave(9)
        tiles = unit(cut(images, index, top, left, self.tile))
        tiles = _greyed(tiles, grey.repeat_interleave(9))
        tiles = standardized(tiles) if self.normalize_tiles else self.normalized(tiles)
        self.drawn = [_caption(*row) for row in zip(shown.tolist(), grey.tolist(), strict=True)]
        return Targeted((tiles.unflatten(0, (n, 9)),), targets.to(images.device))

    def denormalize(self, images: Tensor) -> Tensor:
        """Tiles as pictures: those without a mean and deviation are given middling ones."""
        return images * 0.25 + 0.5 if self.normalize_tiles else super().denormalize(images)

    def captions(self) -> tuple[list[str], ...]:
        return (self.drawn,)


def standardized(images: Tensor) -> Tensor:
    """(N, C, H, W), each channel with its mean off and its deviation divided out.

    Channels of a deviation below ``FLAT`` are divided by that: what is flat becomes zero.

    >>> standardized(torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]])).flatten()
    tensor([-1.,  1.,  0.,  0.])
    """
    deviation, mean = torch.std_mean(images, (2, 3), correction=0, keepdim=True)
    return (images - mean) / deviation.clamp(min=FLAT)


@cache
def permutation_set(n: int, tiles: int = 9) -> Tensor:
    """Permutations far apart by Hamming distance (Noroozi and Favaro 2016, algorithm 1).

    From the identity on, the permutation is added whose distances to those chosen have the
    greatest sum; among equals, the one farthest from its nearest; then the first in order. A
    smaller set is the beginning of a larger one.

    Args:
        n: how many, 2 to the factorial of tiles.
        tiles: things permuted, at most 9.

    Returns:
        (n, tiles), int64.

    Raises:
        ValueError: an n outside its range.

    >>> permutation_set(3, tiles=3)
    tensor([[0, 1, 2],
            [1, 2, 0],
            [2, 0, 1]])
    """
    if not isinstance(n, int) or not 2 <= n <= factorial(tiles):
        raise ValueError(f"permutations must be 2 to {factorial(tiles)}, not {n!r}")
    every = np.array(list(orders(range(tiles))), np.int8).T.copy()  # (tiles, tiles!)
    total = np.zeros(every.shape[1], np.int32)
    nearest = np.full(every.shape[1], tiles, np.int32)
    chosen = [0]
    for _ in tqdm(range(1, n), "permutations", delay=2, disable=None, leave=False):
        distance = (every != every[:, chosen[-1:]]).sum(0, dtype=np.int8)
        total += distance
        np.minimum(nearest, distance, out=nearest)
        rank = total * (tiles + 1) + nearest
        rank[chosen] = -1
        chosen.append(int(rank.argmax()))
    return torch.from_numpy(every[:, chosen].T.astype(np.int64))


def _greyed(images: Tensor, grey: Tensor) -> Tensor:
    """(N, 3, H, W), those that are true in grey, (N,), by their luma."""
    luma = torch.tensor(LUMA, dtype=torch.float32).to(images.device)[:, None, None]
    gate = grey.to(images.device)[:, None, None, None]
    return torch.where(gate, (images * luma).sum(1, keepdim=True), images)


def _caption(order: list[int], grey: bool) -> str:
    return " ".join(map(str, order)) + "\ngrey" * grey
