"""Images cut to the box that their set gives of the object in them."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sslkit.data import decode as files

Box = tuple[float, float, float, float]  # left, top, right and bottom edge, in pixels of the file


class Cropped:
    """Files as sources of ``LabelledImages``, each cut to its box when it is asked for.

    A box is clipped to the image, and widened to whole pixels. The file is decoded at its full
    size, and what is left is a picture like any other: it is then resized, and cropped to a square.

    Args:
        paths: the files. boxes: one each.

    Attributes:
        fingerprint: of the boxes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.png")
    ...     Image.new("L", (40, 30)).save(path)
    ...     Cropped([path], [(30.5, 5, 50, 20)])[0].size
    (10, 15)
    """

    def __init__(self, paths: Sequence[Path], boxes: Sequence[Box]) -> None:
        self.paths, self.boxes = paths, boxes
        self.fingerprint = hashlib.sha256(repr(boxes).encode()).hexdigest()

    def __getitem__(self, index: int, /) -> Image.Image:
        """The picture inside the box.

        Raises:
            OSError: the file cannot be decoded, or the box lies outside the image.
        """
        path, (left, top, right, bottom) = self.paths[index], self.boxes[index]
        try:
            with files.quiet(), Image.open(path, formats=files.FORMATS) as image:
                image.load()
                inside = (max(0, math.floor(left)), max(0, math.floor(top)))
                end = (min(image.width, math.ceil(right)), min(image.height, math.ceil(bottom)))
                if inside[0] >= end[0] or inside[1] >= end[1]:
                    size = f"{image.width} x {image.height}"
                    raise ValueError(f"its box {self.boxes[index]} is outside the {size} pixels")
                return image.crop((*inside, *end))
        except files.FAULTS as error:
            raise OSError(f"{str(path)!r}: {files.reason(path, error)}") from error


def four(name: str, values: Iterable[Any]) -> Box:
    """The numbers of a box; ValueError, with the name of its image, unless they are four."""
    values = list(values)
    try:
        first, second, third, fourth = map(float, values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the box of {name!r} is not four numbers, but {values}") from error
    return first, second, third, fourth


def checked(name: str, box: Box) -> Box:
    """The box; ValueError, with the name of its image, if nothing is in it.

    >>> checked("a.jpg", (3, 0, 3, 8))
    Traceback (most recent call last):
    ...
    ValueError: the box of 'a.jpg' is empty: from 3, 0 to 3, 8
    """
    left, top, right, bottom = box
    if not (all(map(math.isfinite, box)) and left < right and top < bottom):
        text = f"from {left:g}, {top:g} to {right:g}, {bottom:g}"
        raise ValueError(f"the box of {name!r} is empty: {text}")
    return box
