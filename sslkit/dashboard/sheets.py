"""Contact sheets: what the views make of images, and which images the backbone calls alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

INK, MUTED, PAPER = "#1b1b1f", "#6b6b76", "#ffffff"
AGREES, DIFFERS, UNKNOWN = "#1a7f37", "#c62f2f", "#c9c9d1"  # the shape of the frame differs too
GAP = 8  # pixels


def views_sheet(images: Tensor, views: Sequence[Tensor], *, rows: int = 8) -> Image.Image:
    """Draw images beside their views, a row an image.

    More than four rows are laid out in two blocks side by side while they stay narrow enough.

    Args:
        images: (N, C, H, W), uint8, C 1 or 3.
        views: each (N, C, h, w), float in [0, 1] (denormalised); values outside are clipped.
        rows: images shown at most.

    Raises:
        ValueError: if the batch is empty, the batch sizes differ, or C is neither 1 nor 3.

    >>> import torch
    >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    >>> views_sheet(images, (torch.rand(2, 3, 32, 32),)).mode
    'RGB'
    """
    sizes = [len(images), *(len(view) for view in views)]
    if len(images) == 0 or len(set(sizes)) > 1:
        raise ValueError(f"images and views need one batch size above 0, not {sizes}")
    side = _side(images)
    columns = [_pictures(batch[:rows], side) for batch in (images, *views)]
    titles = ["original", *(f"view {i}" for i in range(len(views)))]
    shown = len(columns[0])
    blocks = 2 if shown > 4 and 2 * len(titles) * side <= 1200 else 1
    per_block = -(-shown // blocks)
    head = 24
    block_width = len(titles) * (side + GAP) - GAP
    width = 2 * GAP + blocks * block_width + (blocks - 1) * 4 * GAP
    sheet = Image.new("RGB", (width, head + GAP + per_block * (side + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for block in range(blocks):
        left = GAP + block * (block_width + 4 * GAP)
        for column, title in enumerate(titles):
            x = left + column * (side + GAP)
            draw.text((x + side / 2, GAP), title, INK, _font(14), anchor="ma")
            for row in range(min(per_block, shown - block * per_block)):
                picture = columns[column][block * per_block + row]
                sheet.paste(picture, (x, head + GAP + row * (side + GAP)))
    return sheet


def neighbour_sheet(
    images: Tensor,
    neighbours: Tensor,
    labels: Tensor | None = None,
    classes: Sequence[str] | None = None,
    scores: Tensor | None = None,
) -> Image.Image:
    """Draw queries with their nearest neighbours, a row a query, nearest first.

    With labels, a neighbour of the query's class has a whole green frame, another a red one that
    is broken at the middle of each side; labels below 0 are unknown. Scores stand under the
    neighbours.

    Args:
        images: (Q, C, H, W), uint8: the queries.
        neighbours: (Q, K, C, H, W), uint8.
        labels: (Q, 1 + K): the query's label, then its neighbours'.
        classes: names by label, written under the query.
        scores: (Q, K): similarities, in [-1, 1] when they are cosines.

    Raises:
        ValueError: if a shape does not fit the others.

    >>> import torch
    >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    >>> neighbour_sheet(images, images[:, None], torch.tensor([[0, 0], [1, 0]])).mode
    'RGB'
    """
    queries, k = len(images), neighbours.shape[1] if neighbours.ndim == 5 else 0
    if queries == 0 or k == 0 or len(neighbours) != queries:
        shape = tuple(neighbours.shape)
        raise ValueError(f"neighbours must be (Q, K, C, H, W) with Q {queries}, not {shape}")
    for what, given, expected in (("labels", labels, k + 1), ("scores", scores, k)):
        if given is not None and tuple(given.shape) != (queries, expected):
            raise ValueError(f"{what} must be {(queries, expected)}, not {tuple(given.shape)}")
    side, head, foot, frame = _side(images), 24, 20, 4
    step = side + 2 * frame + GAP
    width = 3 * GAP + (k + 1) * step
    sheet = Image.new("RGB", (width, head + GAP + queries * (step + foot)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP + step / 2, GAP), "query", INK, _font(14), anchor="ma")
    draw.text((3 * GAP + step, GAP), "nearest first", INK, _font(14), anchor="la")
    known = np.full((queries, k + 1), -1) if labels is None else np.asarray(labels)
    for row in range(queries):
        y = head + GAP + row * (step + foot)
        pictures = _pictures(images[row : row + 1], side) + _pictures(neighbours[row], side)
        for column, picture in enumerate(pictures):
            x = GAP + column * step + (2 * GAP if column else 0)
            if column:
                _frame(draw, x, y, side + 2 * frame, known[row, 0], known[row, column])
            sheet.paste(picture, (x + frame, y + frame))
            below = _name(classes, known[row, 0], side) if column == 0 else ""
            if column and scores is not None:
                below = f"{float(scores[row, column - 1]):.3f}"
            middle = (x + frame + side / 2, y + side + 2 * frame + 3)
            draw.text(middle, below, MUTED if column else INK, _font(12), anchor="ma")
    return sheet


def _frame(draw: ImageDraw.ImageDraw, x: int, y: int, size: int, query: int, label: int) -> None:
    """Say with colour and shape whether two labels agree; the picture covers the inside."""
    box = (x, y, x + size - 1, y + size - 1)
    if query < 0 or label < 0:
        draw.rectangle(box, fill=PAPER, outline=UNKNOWN)
        return
    draw.rectangle(box, fill=AGREES if query == label else DIFFERS)
    if query != label:
        third = size // 3
        draw.rectangle((x, y + third, x + size - 1, y + size - 1 - third), fill=PAPER)
        draw.rectangle((x + third, y, x + size - 1 - third, y + size - 1), fill=PAPER)


def _name(classes: Sequence[str] | None, label: int, width: int) -> str:
    """The class name, cut to the width in pixels."""
    if classes is None or not 0 <= label < len(classes):
        return f"class {label}" if label >= 0 else ""
    name = str(classes[label])
    while _font(12).getlength(name) > width + GAP and len(name) > 2:
        name = name[:-2].rstrip("…") + "…"
    return name


def _side(images: Tensor) -> int:
    """Pixels a picture is drawn with: a whole multiple of the image's, near 100; 128 at most."""
    longest = max(images.shape[-2:])
    return min(128, longest * max(1, round(100 / longest)))


def _pictures(batch: Tensor, side: int) -> list[Image.Image]:
    """(N, C, H, W), uint8 or float in [0, 1] -> N squares; small images keep their pixels."""
    pixels = np.asarray(batch.detach().cpu().float())
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"images must be (N, 1 or 3, H, W), not {pixels.shape}")
    if batch.is_floating_point():
        pixels = np.nan_to_num(pixels).clip(0, 1) * 255
    pixels = pixels.repeat(4 - pixels.shape[1], axis=1)  # grey becomes RGB, RGB stays
    pixels = pixels.round().astype(np.uint8).transpose(0, 2, 3, 1)
    squares = []
    for array in pixels:
        picture = Image.fromarray(array)
        scale = side / max(picture.size)
        size = tuple(max(1, round(edge * scale)) for edge in picture.size)
        how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
        square = Image.new("RGB", (side, side), PAPER)
        square.paste(picture.resize(size, how), ((side - size[0]) // 2, (side - size[1]) // 2))
        squares.append(square)
    return squares


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
