"""The files of one extraction: features and labels as .npy, and a JSON that says what they are."""

import errno
import json
import logging
import os
import shutil
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap

from sslkit import __version__
from sslkit.evaluation.features import Features

logger = logging.getLogger("sslkit")

FORMAT = "sslkit features 1"
FULL = (errno.ENOSPC, errno.EDQUOT)
REMEDY = "remove it and it is extracted anew"


class FeatureFiles:
    """``<key>.npy``, ``<key>.labels.npy`` and, last, ``<key>.json``: where it is, they are whole.

    While they are written each has ``.part`` after its name, and its whole size from the start.

    >>> import tempfile
    >>> like = Features(torch.ones(1, 4), torch.tensor([7]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = FeatureFiles(Path(folder), "0123")
    ...     files.create(1, like, {"": 4}, {"data": "two ones"})
    ...     parts = files.parts()
    ...     parts.features[:], parts.labels[:] = like
    ...     absent = files.read()
    ...     files.finish()
    ...     features, widths = files.whole()
    >>> absent, features.features, features.labels, widths
    (None, tensor([[1., 1., 1., 1.]]), tensor([7]), {'': 4})
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.arrays = (folder / f"{key}.npy", folder / f"{key}.labels.npy")
        self.card = folder / f"{key}.json"

    def read(self) -> tuple[Features, dict[str, int]] | None:
        """The features, mapped to memory, and the width of each layer; None if not all is there.

        Raises:
            ValueError: a file that is cut short or of another kind.
        """
        try:
            card = json.loads(self.card.read_text())
            if card["format"] != FORMAT:
                raise ValueError(f"its format is {card['format']!r}, not {FORMAT!r}")
            about, widths = [card["features"], card["labels"]], dict(card["widths"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            why = f"{self.card} does not say what features these are: {error!r}"
            raise ValueError(f"{why}; {REMEDY}") from error
        if not all(path.exists() for path in self.arrays):
            return None
        maps = [_mapped(path, **each) for path, each in zip(self.arrays, about, strict=True)]
        return Features(*map(torch.from_numpy, maps)), widths

    def whole(self) -> tuple[Features, dict[str, int]]:
        """As :meth:`read`, of what must be there.

        Raises:
            FileNotFoundError: it is not.
        """
        if (found := self.read()) is None:
            raise FileNotFoundError(f"{self.card} is not there: was it removed meanwhile?")
        return found

    def locked(self) -> AbstractContextManager[Any]:
        """The right to write, which one process has at a time; the others wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f".{self.key}.lock")
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            logger.info("another process extracts the same features: waiting for it")
            return lock.acquire()

    def create(self, n: int, like: Features, widths: dict[str, int], card: dict[str, Any]) -> None:
        """Make the files under their first names, with room for n rows like those of ``like``.

        Raises:
            OSError: a disk without that room.
        """
        self.discard()  # what a killed process left
        arrays = [part.numpy() for part in like]
        shapes = [(n, *array.shape[1:]) for array in arrays]
        needed = 2**16 + sum(prod(s) * a.itemsize for s, a in zip(shapes, arrays, strict=True))
        if needed > shutil.disk_usage(self.folder).free:
            raise self._full(needed)
        try:
            about = [
                _made(_part(path), array.dtype, shape)
                for path, array, shape in zip(self.arrays, arrays, shapes, strict=True)
            ]
            versions = {"sslkit": __version__, "torch": torch.__version__}
            own = {"format": FORMAT, "features": about[0], "labels": about[1], "widths": widths}
            text = json.dumps({**own, **card, "versions": versions}, indent=2)
            _part(self.card).write_text(text + "\n")
        except OSError as error:
            self.discard()
            if error.errno in FULL:
                raise self._full(needed) from error
            raise

    def parts(self) -> Features:
        """The files that were made, to write to: memory that processes share."""
        maps = [open_memmap(_part(path), mode="r+") for path in self.arrays]
        return Features(*map(torch.from_numpy, maps))

    def finish(self) -> None:
        """Put the written files in their places."""
        for path in self.arrays:
            open_memmap(_part(path), mode="r+").flush()
        for path in (*self.arrays, self.card):
            os.replace(_part(path), path)

    def discard(self) -> None:
        """Remove what is not finished."""
        for path in (*self.arrays, self.card):
            _part(path).unlink(missing_ok=True)

    def _full(self, needed: int) -> OSError:
        free = shutil.disk_usage(self.folder).free
        text = f"features need {needed:,} bytes at {self.folder}, where {free:,} are free"
        return OSError(errno.ENOSPC, text)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _made(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> dict[str, Any]:
    """A new .npy file of zeros: all its blocks are taken now, as a full disk kills who maps it."""
    offset = open_memmap(path, mode="w+", dtype=dtype, shape=shape).offset
    size = path.stat().st_size
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.seek(offset)
            for at in range(offset, size, 2**20):
                file.write(bytes(min(2**20, size - at)))
    return {"dtype": str(dtype), "shape": list(shape), "size": size}


def _mapped(path: Path, dtype: str, shape: list[int], size: int) -> np.ndarray:
    found = path.stat().st_size
    what = f"{found:,} bytes"
    if found == size:
        try:
            array = open_memmap(path, mode="c")
        except ValueError:
            what = "something else"
        else:
            if array.dtype == dtype and array.shape == tuple(shape):
                return array
            what = f"{array.dtype} {array.shape}"
    expected = f"expected {dtype} {tuple(shape)}, {size:,} bytes, found {what}"
    raise ValueError(f"{path} is cut short or another file: {expected}; {REMEDY}")
