"""Data sets by name, in memory as uint8: ``load("cifar10", "train")``."""

import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torchvision import datasets as tv
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from sslkit.data.array import ArrayDataset
from sslkit.data.folder import ImageFolder
from sslkit.data.storage import FAULTS, check_choice, data_root, one_line

TIMEOUT = 8.0  # seconds without an answer before a download is given up


def _cifar(cls: type[tv.CIFAR10], root: Path, split: str, download: bool) -> ArrayDataset:
    data = cls(root, train=split == "train", download=download)
    images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
    return ArrayDataset(images, torch.tensor(data.targets), data.classes)


def _fashion_mnist(root: Path, split: str, download: bool) -> ArrayDataset:
    data = tv.FashionMNIST(root, train=split == "train", download=download)
    return ArrayDataset(data.data[:, None].expand(-1, 3, -1, -1), data.targets, data.classes)


def _stl10(root: Path, split: str, download: bool) -> ArrayDataset:
    data = tv.STL10(root, split=split, download=download)
    images = torch.from_numpy(data.data)
    if split == "unlabeled":
        return ArrayDataset(images)
    labels = torch.from_numpy(data.labels.astype(np.int64))
    return ArrayDataset(images, labels, getattr(data, "classes", None))


def _shapes(split: str, limit: int | None) -> ArrayDataset:
    from sslkit.data.shapes import CLASSES, COUNTS, shapes

    images, labels = shapes(split, None if limit is None else min(limit, COUNTS[split]))
    return ArrayDataset(torch.from_numpy(images), torch.from_numpy(labels), CLASSES)


class Source(NamedTuple):
    """What ``load`` knows of a data set; channels and size are those of the images it returns."""

    splits: tuple[str, ...]
    channels: int
    size: int
    read: Callable[..., Any]
    folder: str = ""  # under root, in torchvision's layout; "" if the set is not stored
    homepage: str = ""


BOTH = ("train", "test")
CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
FASHION = "https://github.com/zalandoresearch/fashion-mnist"
STL = "https://cs.stanford.edu/~acoates/stl10/"
DATASETS = {
    "cifar10": Source(BOTH, 3, 32, partial(_cifar, tv.CIFAR10), "cifar-10-batches-py", CIFAR),
    "cifar100": Source(BOTH, 3, 32, partial(_cifar, tv.CIFAR100), "cifar-100-python", CIFAR),
    "fashion_mnist": Source(BOTH, 3, 28, _fashion_mnist, "FashionMNIST", FASHION),
    "stl10": Source((*BOTH, "unlabeled"), 3, 96, _stl10, "stl10_binary", STL),
    "shapes": Source(BOTH, 3, 32, _shapes),
    "folder": Source(("train",), 3, 224, ImageFolder),
}


def load(
    name: str,
    split: str = "train",
    *,
    root: str | Path | None = None,
    size: int | None = None,
    limit: int | None = None,
    download: bool = True,
) -> ArrayDataset | ImageFolder:
    """A data set by its name in ``DATASETS``, with uint8 images of 3 channels.

    Args:
        name: a key of ``DATASETS``; "shapes" is drawn, "folder" is any directory of images.
        split: "train" or "test"; "unlabeled" too for stl10; a folder has only "train".
        root: where the sets are stored in torchvision's layout: by default ``$SSLKIT_DATA``,
            else ``~/.cache/sslkit/data``. For "folder" the directory itself, without a default.
        size: side in pixels to resize to, antialiased; by default the native one (a folder: 224).
        limit: keep only the first so many images.
        download: whether to fetch a set that is not stored.

    Raises:
        ValueError: unknown name or split, size or limit below 1, no root for a folder, or files
            that are damaged.
        FileNotFoundError: the set is not stored and cannot be fetched.

    >>> data = load("shapes", "test", size=16, limit=8)
    >>> data.images.shape, data.labels.shape
    (torch.Size([8, 3, 16, 16]), torch.Size([8]))
    """
    check_choice("data set", name, tuple(DATASETS))
    source = DATASETS[name]
    check_choice(f"split of {name}", split, source.splits)
    for what, value in (("size", size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{what} must be at least 1, got {value!r}")
    if name == "folder":
        if root is None:
            raise ValueError("data set 'folder' needs its root, the directory of images")
        folder = ImageFolder(root, size or source.size)
        folder.paths = folder.paths[:limit]
        return folder
    if name == "shapes":
        data = source.read(split, limit)
    else:
        data = _stored(name, split, data_root(root), download)
    images = data.images[:limit]
    if size is not None and size != source.size:
        images = _resized(images, size)
    return ArrayDataset(images, None if data.labels is None else data.labels[:limit], data.classes)


def _stored(name: str, split: str, root: Path, download: bool) -> ArrayDataset:
    """Read the set from disk; fetch it first if it is absent."""
    source = DATASETS[name]
    folder = root / source.folder
    why = "download is off"
    if not folder.exists() and download:
        why = _fetch(source, root, split)
    if not folder.exists():
        raise FileNotFoundError(
            f"{name} is not at {folder} ({why}): get it from {source.homepage} and unpack it "
            "there, or name the folder it lies in by root (pretrain --data.root, evaluate --root) "
            "or SSLKIT_DATA"
        )
    try:
        return source.read(root, split, False)
    except FAULTS as error:
        raise ValueError(
            f"{name} at {folder} is damaged or incomplete ({one_line(error)}): remove that "
            f"folder to have it fetched anew, or unpack {source.homepage} there"
        ) from error


def _fetch(source: Source, root: Path, split: str) -> str:
    """Download beside the sets and move in what reads well; otherwise say why not."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    # the progress bar is for a person who waits, not for a log
    silence = nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO())
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=root) as part, silence:
            source.read(Path(part), split, True)
            Path(part, source.folder).rename(root / source.folder)
    except FAULTS as error:  # also when another process has moved it in meanwhile
        return f"the download failed: {one_line(error)}"
    finally:
        socket.setdefaulttimeout(before)
    return ""


def _resized(images: torch.Tensor, size: int, chunk: int = 1024) -> torch.Tensor:
    """Antialiased, a chunk at a time: uint8 (N, C, H, W) -> (N, C, size, size)."""
    out = torch.empty(*images.shape[:2], size, size, dtype=torch.uint8)
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk]
        out[start : start + chunk] = resize(
            part, [size, size], InterpolationMode.BICUBIC, antialias=True
        )
    return out
