"""Contact sheets: what the views make of images, and which images the backbone calls alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sslkit.dashboard.names import shortened

if TYPE_CHECKING:
    from torch import Tensor

INK, MUTED, PAPER = "#1b1b1f", "#6b6b76", "#ffffff"
AGREES, DIFFERS, UNKNOWN = "#1a7f37", "#c62f2f", "#c9c9d1"  # the shape of the frame differs too
GAP = 8  # pixels, as all that follow
LEADING = 15  # of a line of text
TEXT = 130  # of a caption's width, before it is wrapped
LEAST = 48  # of a view's longer side


def views_sheet(
    images: Tensor,
    views: Sequence[Tensor],
    *,
    rows: int = 8,
    captions: Sequence[Sequence[str]] = (),
    targets: Tensor | None = None,
    titles: Sequence[str] = (),
) -> Image.Image:
    """Draw images beside their views, a row an image, each view above the lines of its caption.

    A batch of k N views of N images is k copies of the batch, one after another: view j of image
    i is at j N + i; of batches of one length, views j stand together. A batch of tiles,
    (k N, m, C, h, w), makes grids as square as can be, row by row. Views stand in proportion to
    each other, but for those that would be too small to see.
    Rows are laid out in blocks side by side while they stay narrow enough.

    Args:
        images: (N, C, H, W), uint8 or float in [0, 1], C 1 or 3.
        views: batches as above, float in [0, 1] (denormalised); values outside are clipped.
        rows: images shown at most.
        captions: none, or for each batch of views a text for each of them; N texts for k N views
            are each image's.
        targets: what a pretext task predicts, (M, ...): written under the last batch of M views,
            or under the images where they alone are M.
        titles: of the columns; none for "original", "view 0", "view 1" and so on.

    Raises:
        ValueError: if the batch is empty, a batch is no multiple of it or holds no pictures,
            captions, targets or titles do not fit the views, or rows are below 1.

    >>> import torch
    >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    >>> views_sheet(images, (torch.rand(2, 3, 32, 32),), captions=[["mirrored", ""]]).mode
    'RGB'
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    columns = _columns(images, views, _texts(images, views, captions, targets), rows)
    if titles:
        if len(titles) != len(columns):
            raise ValueError(f"{len(columns)} columns cannot have {len(titles)} titles")
        columns = [c._replace(title=title) for c, title in zip(columns, titles, strict=True)]
    shown = len(columns[0].pictures)
    widths = [column.width() for column in columns]
    block_width = sum(widths) + (len(widths) - 1) * GAP
    blocks = max(1, min(-(-shown // 4), 1200 // block_width))
    per_block = -(-shown // blocks)
    heights = [max(column.height(row) for column in columns) + GAP for row in range(shown)]
    head = 24 + GAP
    starts = range(0, shown, per_block)
    width = 2 * GAP + len(starts) * (block_width + 4 * GAP) - 4 * GAP
    height = head + max(sum(heights[start : start + per_block]) for start in starts)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    x = GAP
    for start in starts:
        for column, column_width in zip(columns, widths, strict=True):
            draw.text((x, GAP), column.title, INK, _font(14))
            y = head
            for row in range(start, min(start + per_block, shown)):
                column.draw(sheet, draw, row, x, y)
                y += heights[row]
            x += column_width + GAP
        x += 3 * GAP
    return sheet


class _Column(NamedTuple):
    """A title, and for each row a picture and the lines of text under it."""

    title: str
    pictures: list[Image.Image]
    lines: list[list[str]]

    def width(self) -> int:
        texts = [_font(12).getlength(line) + GAP / 2 for lines in self.lines for line in lines]
        pictures = [picture.width for picture in self.pictures]
        return math.ceil(max(*pictures, *texts, _font(14).getlength(self.title)))

    def height(self, row: int) -> int:
        return self.pictures[row].height + LEADING * len(self.lines[row])

    def draw(self, sheet: Image.Image, draw: ImageDraw.ImageDraw, row: int, x: int, y: int) -> None:
        picture = self.pictures[row]
        draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=UNKNOWN)
        sheet.paste(picture, (x, y))
        for i, line in enumerate(self.lines[row]):
            draw.text((x, y + picture.height + 1 + i * LEADING), line, INK, _font(12))


def _columns(
    images: Tensor, views: Sequence[Tensor], texts: list[list[str]], rows: int
) -> list[_Column]:
    """The originals, then each view an image."""
    n, columns = len(images), []
    largest = max(map(_longest, views), default=1)
    scale = _side(largest, most=160) / largest
    factors = [_side(_longest(images), most=160) / _longest(images)]
    factors += [max(scale, LEAST / _longest(batch)) for batch in views]
    parts = [
        (batch[start : start + n], factor, of_batch[start : start + n])
        for batch, factor, of_batch in zip((images, *views), factors, texts, strict=True)
        for start in range(0, len(batch), n)
    ]
    if len({len(batch) for batch in views}) == 1:
        each = len(views[0]) // n
        parts = [parts[0], *(part for j in range(each) for part in parts[1 + j :: each])]
    for part, factor, of_part in parts:
        title = f"view {len(columns) - 1}" if columns else "original"
        pictures = _drawn(part[:rows], factor)
        width = max(TEXT, *(picture.width for picture in pictures))
        lines = [_wrapped(text, width) for text in of_part[:rows]]
        columns.append(_Column(title, pictures, lines))
    return columns


def _texts(
    images: Tensor,
    views: Sequence[Tensor],
    captions: Sequence[Sequence[str]],
    targets: Tensor | None,
) -> list[list[str]]:
    """What stands under each picture of the images and of each batch of views."""
    n, sizes = len(images), [len(images), *map(len, views)]
    if not n or any(size == 0 or size % n for size in sizes):
        raise ValueError(
            f"views must be a multiple of the images in number, both above 0, not {sizes}"
        )
    if captions and len(captions) != len(views):
        raise ValueError(
            f"captions must be a list for each of {len(views)} batches, not {len(captions)}"
        )
    texts = [[""] * size for size in sizes]
    for i, given in enumerate(captions, start=1):
        if len(given) not in (n, sizes[i]):
            raise ValueError(f"{sizes[i]} views of {n} images cannot have {len(given)} captions")
        texts[i] = [*given] * (sizes[i] // len(given))
    if targets is not None:
        if len(targets) not in sizes:
            raise ValueError(f"targets must be {' or '.join(map(str, sizes))}, not {len(targets)}")
        at = max(i for i, size in enumerate(sizes) if size == len(targets))
        both = zip(targets, texts[at], strict=True)
        texts[at] = [f"target {_short(target)}\n{text}" for target, text in both]
    return texts


def _short(target: Tensor) -> str:
    """A target in few words: its numbers while they are few, else the first of them, or its shape.

    >>> import torch
    >>> _short(torch.tensor(2)), _short(torch.arange(20)), _short(torch.zeros(3, 8, 8))
    ('2', '0 1 2 3 4 5 6 7 8 …', '3 x 8 x 8')
    """
    if target.ndim > 1:
        return " x ".join(map(str, target.shape))
    numbers = target.flatten().tolist()
    words = [f"{x:.2f}" if isinstance(x, float) else f"{x:d}" for x in numbers[:9]]
    return " ".join(words + ["…"] * (len(numbers) > 9))


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
    side, head, foot, frame = _side(_longest(images)), 24, 20, 4
    step = side + 2 * frame + GAP
    width = 3 * GAP + (k + 1) * step
    sheet = Image.new("RGB", (width, head + GAP + queries * (step + foot)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP + step / 2, GAP), "query", INK, _font(14), anchor="ma")
    title = "nearest first" + "; green: of its class, broken red: not" * (labels is not None)
    title = title if _font(14).getlength(title) <= width - 4 * GAP - step else "nearest first"
    draw.text((3 * GAP + step, GAP), title, INK, _font(14), anchor="la")
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
    """The class name, shortened to the width in pixels."""
    if classes is None or not 0 <= label < len(classes):
        return f"class {label}" if label >= 0 else ""
    return shortened(str(classes[label]), width + GAP, _font(12).getlength)


def _wrapped(text: str, width: int) -> list[str]:
    """The lines of a text, broken between words to the width in pixels."""
    lines = []
    for line in text.splitlines():
        first, *others = line.split() or [""]
        lines.append(first)
        for word in others:
            longer = f"{lines[-1]} {word}"
            fits = _font(12).getlength(longer) <= width
            lines[-1:] = [longer] if fits else [lines[-1], word]
    return [shortened(line, width, _font(12).getlength) for line in lines]


def _side(longest: int, most: int = 128) -> int:
    """Pixels that a picture is drawn with: a whole multiple of its own, near 100; or the most."""
    return min(most, longest * max(1, round(100 / longest)))


def _longest(batch: Tensor) -> int:
    """The longer side of the pictures of a batch, in pixels of theirs.

    Raises:
        ValueError: a batch that is none of pictures.
    """
    if batch.ndim not in (4, 5) or batch.shape[-3] not in (1, 3) or 0 in batch.shape:
        raise ValueError(
            "pictures must be (N, 1 or 3, H, W), or (N, tiles, 1 or 3, H, W), not "
            f"{tuple(batch.shape)}"
        )
    down, across = _grid(batch.shape[1]) if batch.ndim == 5 else (1, 1)
    return max(down * batch.shape[-2], across * batch.shape[-1])


def _grid(tiles: int) -> tuple[int, int]:
    """Rows and columns of a grid as square as can be."""
    across = math.ceil(math.sqrt(tiles))
    return -(-tiles // across), across


def _drawn(batch: Tensor, factor: float) -> list[Image.Image]:
    """Each picture of a batch, or each grid of tiles, so many times as large."""
    if batch.ndim == 4:
        return [_scaled(picture, factor) for picture in _rgb(batch)]
    tiles, grids = [_scaled(tile, factor) for tile in _rgb(batch.flatten(0, 1))], []
    down, across = _grid(batch.shape[1])
    width, height = (edge + 2 for edge in tiles[0].size)  # with the gap to the next
    for start in range(0, len(tiles), batch.shape[1]):
        grid = Image.new("RGB", (across * width - 2, down * height - 2), PAPER)
        for i, tile in enumerate(tiles[start : start + batch.shape[1]]):
            grid.paste(tile, (i % across * width, i // across * height))
        grids.append(grid)
    return grids


def _pictures(batch: Tensor, side: int) -> list[Image.Image]:
    """(N, C, H, W), uint8 or float in [0, 1] -> N squares; small images keep their pixels."""
    squares = []
    for picture in _drawn(batch, side / _longest(batch)):
        square = Image.new("RGB", (side, side), PAPER)
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        squares.append(square)
    return squares


def _rgb(batch: Tensor) -> list[Image.Image]:
    """(N, 1 or 3, H, W), uint8 or float in [0, 1] -> N pictures."""
    pixels = np.asarray(batch.detach().cpu().float())
    if batch.is_floating_point():
        pixels = np.nan_to_num(pixels).clip(0, 1) * 255
    pixels = pixels.repeat(4 - pixels.shape[1], axis=1)  # grey becomes RGB, RGB stays
    return [*map(Image.fromarray, pixels.round().astype(np.uint8).transpose(0, 2, 3, 1))]


def _scaled(picture: Image.Image, factor: float) -> Image.Image:
    """A picture made smaller, or larger by a whole number, with its pixels to be seen."""
    factor = round(factor) if factor > 1 else factor
    size = tuple(max(1, round(edge * factor)) for edge in picture.size)
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return picture.resize(size, how)


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
