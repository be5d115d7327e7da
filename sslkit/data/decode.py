"""One image file to an upright RGB square, whatever its format, depth or damage."""

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, JpegImagePlugin

# Named, so that a file that is not what its suffix says never reaches Ghostscript or the like.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
FAULTS = (  # the first four: what damaged files were seen to raise; PIL's code guards the rest
    *(OSError, SyntaxError, ValueError, Image.DecompressionBombError),
    *(EOFError, IndexError, KeyError, TypeError, struct.error),
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


quiet = _Quiet()


def reason(file: Path | BytesIO, error: BaseException) -> str:
    """One line that says what is wrong with the file."""
    if isinstance(error, Image.UnidentifiedImageError):
        size = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes
        return "not an image" if size else "empty file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def open_image(file: Path | BytesIO, size: int) -> Image.Image:
    """The image, its header read; a JPEG is set to decode at 1/2, 1/4 or 1/8 if that suffices."""
    draft = (2 * size, 2 * size)
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        # PIL counts the full size. A draft is far smaller, and cheap unless progressive, which
        # keeps the coefficients of the whole image in memory.
        with suppress(SyntaxError):
            if isinstance(file, BytesIO):
                file.seek(0)
            jpeg = JpegImagePlugin.JpegImageFile(file)
            jpeg.draft(None, draft)
            limit = Image.MAX_IMAGE_PIXELS
            if limit and jpeg.width * jpeg.height <= limit and "progressive" not in jpeg.info:
                return jpeg
            jpeg.close()
        raise
    image.draft(None, draft)
    return image


def decode(file: Path | BytesIO, size: int) -> torch.Tensor:
    """The file as an upright square, uint8 (3, size, size)."""
    with quiet(), open_image(file, size) as image:
        return square(image, size)


def square(image: Image.Image, size: int) -> torch.Tensor:
    """The picture as an upright square, uint8 (3, size, size)."""
    with quiet():
        image.load()
        rgb = _rgb(image)
        side = min(rgb.size)
        left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
        cropped = rgb.resize(
            (size, size),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
            reducing_gap=3.0,
        )
        turn = UPRIGHT.get(_orientation(image))
        upright = cropped if turn is None else cropped.transpose(turn)
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1).contiguous()


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except FAULTS:  # the pixels are good: leave them as stored
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
