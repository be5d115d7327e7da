"""An unlabelled folder of images, nested or flat, that no bad file can bring to a halt."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from sslkit.data.decode import FAULTS, decode, open_image, quiet, reason

logger = logging.getLogger("sslkit")

SUFFIXES = (
    *(".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)


class ImageFolder(Dataset):
    """Every image under ``root``, as an upright RGB square: decoded and resized, nothing more.

    The shorter side becomes ``size`` pixels (antialiased) and the longer side is cropped to its
    centre. Greyscale, CMYK, palette and 16-bit images become 8-bit RGB, transparency is laid on
    white, the first frame stands for an animation and EXIF rotation is applied. Hidden files and
    other suffixes are passed over; links to files are followed, links to folders are not.

    A file that cannot be read never ends a run. Those whose header is bad are left out at once;
    where the pixels turn out bad, the next readable image takes the place. Either way the file
    is in ``skipped`` with the reason, and named once by the logger ``sslkit``. In a DataLoader
    each worker process holds a ``skipped`` of its own.

    Args:
        root: folder to search, with its subfolders.
        size: side of the square in pixels, at least 1.

    Attributes:
        paths: the images, sorted by their path relative to ``root``.
        skipped: relative path -> why that file is not used.
        classes: None; every label is -1.

    Raises:
        FileNotFoundError, NotADirectoryError: if ``root`` is absent or no folder.
        ValueError: if ``size`` is below 1, or no image is found or can be read.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     Image.new("L", (40, 30), 7).save(f"{root}/grey.png")
    ...     photos = ImageFolder(root, size=8)
    ...     image, label = photos[0]
    >>> len(photos), image.shape, image.dtype, image.max().item(), label
    (1, torch.Size([3, 8, 8]), torch.uint8, 7, -1)
    """

    classes = None

    def __init__(self, root: str | Path, size: int) -> None:
        self.root = Path(root).expanduser()
        self.size = size
        self.skipped: dict[str, str] = {}
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {size!r}")
        if not self.root.exists():
            raise FileNotFoundError(f"no such image folder: {str(self.root)!r}")
        if not self.root.is_dir():
            raise NotADirectoryError(f"not a folder of images: {str(self.root)!r}")
        found, others = self._walk()
        self.paths = self._readable(found)
        if self.skipped:
            name, why = next(iter(self.skipped.items()))
            first = f"the first is {name!r}: {why}"
            if not self.paths:
                raise ValueError(f"no image under {str(self.root)!r} can be read; {first}")
            logger.warning(
                "left out %d of %d images under %r that cannot be read; %s",
                *(len(self.skipped), len(found), str(self.root), first),
            )
            for name, fault in self.skipped.items():
                logger.info("left out %r: %s", name, fault)
        if not self.paths:
            raise ValueError(
                f"no image under {str(self.root)!r}: looked for {' '.join(SUFFIXES)} and "
                f"saw {others} other files (hidden files and links to folders are passed over)"
            )

    def _walk(self) -> tuple[list[Path], int]:
        """The candidates in their order, and how many other files were seen."""
        found, others = [], 0

        def unlisted(error: OSError) -> None:
            self.skipped[self._name(Path(error.filename))] = f"cannot list: {error.strerror}"

        for folder, folders, files in os.walk(self.root, onerror=unlisted):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                    found.append(Path(folder, name))
                else:
                    others += 1
        return sorted(found, key=self._name), others

    def _readable(self, found: list[Path]) -> list[Path]:
        """Open each header; what has none goes to ``skipped``."""
        Image.init()  # registers the formats before the threads ask for them
        with quiet(), ThreadPoolExecutor() as pool:
            tried = pool.map(self._fault, found)
            text = "reading image headers"
            faults = list(tqdm(tried, text, len(found), delay=2, disable=None, unit="image"))
        self.skipped |= {self._name(p): f for p, f in zip(found, faults, strict=True) if f}
        return [path for path, fault in zip(found, faults, strict=True) if not fault]

    def _fault(self, path: Path) -> str | None:
        """Why the header of this file cannot be read, or None."""
        if not path.is_file():  # a pipe would block for ever
            return "broken link" if path.is_symlink() else "not a file"
        try:
            open_image(path, self.size).close()
        except FAULTS as error:
            return reason(path, error)
        return None

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """The image, uint8 (3, size, size), and -1; the next readable one if it is damaged.

        Raises:
            IndexError: if ``index`` is out of range.
            ValueError: if no image at all can be decoded.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a folder of {len(self)}")
        for step in range(len(self)):
            path = self.paths[(index + step) % len(self)]
            name = self._name(path)
            if name in self.skipped:
                continue
            try:
                return decode(path, self.size), -1
            except FAULTS as error:
                if name in self.skipped:  # another thread was faster
                    continue
                self.skipped[name] = reason(path, error)
                text = "skipped %r under %r: %s; the next readable image takes its place"
                logger.warning(text, name, str(self.root), self.skipped[name])
        name, why = next(iter(self.skipped.items()))
        raise ValueError(
            f"no image under {str(self.root)!r} can be decoded; the first is {name!r}: {why}"
        )
