"""An unlabelled folder of images, nested or flat, that no bad file can bring to a halt."""

import logging
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, JpegImagePlugin
from torch.utils.data import Dataset
from tqdm import tqdm

logger = logging.getLogger("sslkit")

SUFFIXES = (
    *(".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
# Named, so that a file that is not what its suffix says never reaches Ghostscript or the like.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
BROKEN = (  # the first four: what damaged files were seen to raise; PIL's code guards the rest
    *(OSError, SyntaxError, ValueError, Image.DecompressionBombError),
    *(EOFError, IndexError, KeyError, TypeError, MemoryError, struct.error),
)
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
            name, reason = next(iter(self.skipped.items()))
            first = f"the first is {name!r}: {reason}"
            if not self.paths:
                raise ValueError(f"no image under {str(self.root)!r} can be read; {first}")
            logger.warning(
                "left out %d of %d images under %r that cannot be read; %s",
                *(len(self.skipped), len(found), str(self.root), first),
            )
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
        with _quiet(), ThreadPoolExecutor() as pool:
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
            _open(path, self.size).close()
        except BROKEN as error:
            return _reason(path, error)
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
                return _decode(path, self.size), -1
            except BROKEN as error:
                if name in self.skipped:  # another thread was faster
                    continue
                self.skipped[name] = _reason(path, error)
                text = "skipped %r under %r: %s; the next readable image takes its place"
                logger.warning(text, name, str(self.root), self.skipped[name])
        name, reason = next(iter(self.skipped.items()))
        raise ValueError(
            f"no image under {str(self.root)!r} can be decoded; the first is {name!r}: {reason}"
        )


class _Quiet:
    """PIL's warnings off while any thread is inside: ``catch_warnings`` alone mixes threads up."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.filters = warnings.catch_warnings()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.inside:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    self.filters.__exit__(None, None, None)


_quiet = _Quiet()


def _reason(path: Path, error: BaseException) -> str:
    """One line that says what is wrong with the file."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image" if path.stat().st_size else "empty file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _open(path: Path, size: int) -> Image.Image:
    """The image, its header read; a JPEG is set to decode at 1/2, 1/4 or 1/8 if that suffices."""
    draft = (2 * size, 2 * size)
    try:
        image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        # PIL counts the full size. A draft is far smaller, and cheap unless progressive, which
        # keeps the coefficients of the whole image in memory.
        with suppress(SyntaxError):
            jpeg = JpegImagePlugin.JpegImageFile(path)
            jpeg.draft(None, draft)
            limit = Image.MAX_IMAGE_PIXELS
            if limit and jpeg.width * jpeg.height <= limit and "progressive" not in jpeg.info:
                return jpeg
            jpeg.close()
        raise
    image.draft(None, draft)
    return image


def _decode(path: Path, size: int) -> torch.Tensor:
    """The file as an upright square, uint8 (3, size, size)."""
    with _quiet(), _open(path, size) as image:
        image.load()
        rgb = _rgb(image)
        side = min(rgb.size)
        left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
        square = rgb.resize(
            (size, size),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
            reducing_gap=3.0,
        )
        turn = UPRIGHT.get(_orientation(image))
        upright = square if turn is None else square.transpose(turn)
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1).contiguous()


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except BROKEN:  # the pixels are good: leave them as stored
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: deep pixels scaled rather than cut off, transparency on white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0, neginf=0)
        values = values.clip(-1e30, 1e30)
        low, high = 0.0, 1.0 if image.mode == "F" else 65535.0
        if values.min() < low or values.max() > high:  # of no known range: stretch
            low, high = float(values.min()), float(values.max())
        values = (values - low) / max(high - low, 1e-30) * 255
        image = Image.fromarray(np.rint(values).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
