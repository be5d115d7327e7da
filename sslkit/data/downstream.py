"""The 12 sets of the SimCLR transfer table (Chen et al. 2020, appendix B.8; arXiv:2002.05709)."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset
from torchvision import datasets as tv

from sslkit.data import decode as files
from sslkit.data import layouts
from sslkit.data.array import ArrayDataset
from sslkit.data.datasets import BOTH, CIFAR, DATASETS, FAULTS, _check, _line
from sslkit.data.layouts import Listing, by_mat, by_torchvision


class Downstream(NamedTuple):
    """A row: what the paper measures on the set, its published sizes, where it lies."""

    title: str
    metric: str  # "top1", "mean_per_class" accuracy or "map11", 11-point mean average precision
    classes: int
    train: int
    test: int
    read: Callable[[Path], Listing] | None  # None: in memory, as DATASETS reads it
    folder: str  # under root, as torchvision or the authors unpack it
    homepage: str


VGG = "https://www.robots.ox.ac.uk/~vgg/data"
TEST = ("test",)
# fmt: off
DOWNSTREAM = {
    "food101": Downstream("Food-101", "top1", 101, 75_750, 25_250,
        partial(by_torchvision, tv.Food101, ("train",), TEST),
        "food-101", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"),
    "cifar10": Downstream("CIFAR-10", "top1", 10, 50_000, 10_000,
        None, "cifar-10-batches-py", CIFAR),
    "cifar100": Downstream("CIFAR-100", "top1", 100, 50_000, 10_000,
        None, "cifar-100-python", CIFAR),
    "birdsnap": Downstream("Birdsnap", "top1", 500, 47_386, 2_443,
        layouts.birdsnap, "birdsnap", "http://thomasberg.org"),
    "sun397": Downstream("SUN397", "top1", 397, 19_850, 19_850,
        layouts.sun397, "SUN397", "https://vision.princeton.edu/projects/2010/SUN/"),
    "stanford_cars": Downstream("Stanford Cars", "top1", 196, 8_144, 8_041,
        partial(by_mat, tv.StanfordCars, ("train",), TEST),
        "stanford_cars", "https://github.com/pytorch/vision/issues/7545"),  # the page is gone
    "fgvc_aircraft": Downstream("FGVC Aircraft", "mean_per_class", 100, 6_667, 3_333,
        partial(by_torchvision, tv.FGVCAircraft, ("trainval",), TEST),  # its default: variants
        "fgvc-aircraft-2013b", f"{VGG}/fgvc-aircraft/"),
    "voc2007": Downstream("VOC2007", "map11", 20, 5_011, 4_952,
        layouts.voc2007, "VOCdevkit/VOC2007", "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"),
    "dtd": Downstream("DTD", "top1", 47, 3_760, 1_880,
        partial(by_torchvision, tv.DTD, ("train", "val"), TEST),  # its default: partition 1
        "dtd", f"{VGG}/dtd/"),
    "oxford_pets": Downstream("Oxford-IIIT Pets", "mean_per_class", 37, 3_680, 3_669,
        partial(by_torchvision, tv.OxfordIIITPet, ("trainval",), TEST),
        "oxford-iiit-pet", f"{VGG}/pets/"),
    "caltech101": Downstream("Caltech-101", "mean_per_class", 102, 3_060, 6_084,
        layouts.caltech101, "caltech101", "https://data.caltech.edu/records/mzrjq-6wc02"),
    "flowers102": Downstream("Flowers-102", "mean_per_class", 102, 2_040, 6_149,
        partial(by_mat, tv.Flowers102, ("train", "val"), TEST),
        "flowers-102", f"{VGG}/flowers/102/"),
}
# fmt: on


class LabelledImages(Dataset):
    """Image files with their labels, each decoded when asked for, as ``ImageFolder`` decodes.

    The shorter side becomes ``size`` pixels (bicubic, antialiased), the longer one is cropped to
    its centre. No image takes the place of a damaged one: a score counts each exactly once.

    Args:
        paths: the files.
        labels: int64 (N,), or (N, C) with 1 present, 0 absent, -1 present only as difficult.
        classes: the name of each label.
        metric: what is measured on the set, as in ``DOWNSTREAM``.
        size: side of the square in pixels.

    >>> data = LabelledImages([Path("cat.png")], torch.tensor([0]), ["cat"])
    >>> len(data), data.labels, data.classes, data.metric, data.size
    (1, tensor([0]), ('cat',), 'top1', 224)
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: torch.Tensor,
        classes: Sequence[str],
        metric: str = "top1",
        size: int = 224,
    ) -> None:
        self.paths, self.labels, self.classes = list(paths), labels, tuple(classes)
        self.metric, self.size = metric, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor]:
        """The image, uint8 (3, size, size), and its label: an int, or int64 (C,).

        Raises:
            ValueError: the file cannot be decoded.
        """
        path, label = self.paths[index], self.labels[index]
        try:
            image = files.decode(path, self.size)
        except files.FAULTS as error:
            why = files.reason(path, error)
            raise ValueError(f"cannot read the image {str(path)!r}: {why}") from error
        return image, label if label.ndim else int(label)


class Splits(NamedTuple):
    """A set in two; ``differs`` says how it is not the published one, say "16 a class"."""

    train: LabelledImages | ArrayDataset
    test: LabelledImages | ArrayDataset
    differs: str | None


def load_downstream(name: str, *, root: str | Path | None = None, size: int = 224) -> Splits:
    """A set of the transfer table in the paper's split, from disk: nothing is ever fetched.

    Args:
        name: a key of ``DOWNSTREAM``, or "folder": any directory with ``train/`` and ``test/``, in
            each of which a folder of images is a class.
        root: where the sets are stored: by default ``$SSLKIT_DATA``, else
            ``~/.cache/sslkit/data``. For "folder" the directory itself, without a default.
        size: side in pixels of the images; the CIFAR sets stay at 32.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: unknown name, size below 1, files that are missing, damaged or outside the
            set's folder, an image in both splits, or folders whose classes differ.
        ModuleNotFoundError: the set's lists are .mat files and scipy is not installed.

    >>> import tempfile
    >>> from PIL import Image
    >>> root = tempfile.TemporaryDirectory()
    >>> for folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
    ...     Path(root.name, folder).mkdir(parents=True)
    ...     Image.new("L", (40, 30), 7).save(f"{root.name}/{folder}/1.png")
    >>> train, test, _ = load_downstream("folder", root=root.name, size=8)
    >>> train.classes, test.labels, test[1][0].shape, test[1][1]
    (('cat', 'dog'), tensor([0, 1]), torch.Size([3, 8, 8]), 1)
    >>> root.cleanup()
    """
    _check("downstream set", name, (*DOWNSTREAM, "folder"))
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size!r}")
    if name == "folder":
        if root is None:
            raise ValueError("downstream set 'folder' needs its root, with train/ and test/ in it")
        root = Path(root).expanduser()
        return Splits(*_checked(layouts.train_test_folders(root), root, "top1", size), None)
    row = DOWNSTREAM[name]
    root = Path(root or os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit/data").expanduser()
    folder = root / row.folder
    if not folder.is_dir():  # asked first: torchvision's Caltech101 would make it
        text = f"{name} is not at {folder}: get it from {row.homepage} and unpack it there"
        raise FileNotFoundError(f"{text}, or name the folder it lies in by root or SSLKIT_DATA")
    try:
        if row.read is None:
            train, test = (DATASETS[name].read(root, split, False) for split in BOTH)
        else:
            train, test = _checked(row.read(root), folder, row.metric, size)
    except FAULTS as error:
        why = f"unknown {error}" if isinstance(error, KeyError) else _line(error)
        text = f"{name} at {folder} is damaged or incomplete ({why})"
        raise ValueError(f"{text}: unpack {row.homepage} there") from error
    return Splits(train, test, _differs(row, train.labels, test.labels))


def _checked(
    listing: Listing, folder: Path, metric: str, size: int
) -> tuple[LabelledImages, LabelledImages]:
    """The data sets, once every path is found to be inside the folder, there, and in one split."""
    splits = []
    for split, items in (("train", listing.train), ("test", listing.test)):
        paths = [path for path, _ in items]
        layouts.refuse_outside(paths, folder)
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            text = f"{len(missing)} of the {len(paths)} images to {split} with are missing"
            raise ValueError(f"{text}, the first is {missing[0]!r}")
        if not paths:
            raise ValueError(f"no image to {split} with")
        labels = torch.tensor([label for _, label in items], dtype=torch.int64)
        splits.append(LabelledImages(paths, labels, listing.classes, metric, size))
    if both := set(splits[0].paths) & set(splits[1].paths):
        raise ValueError(f"{str(min(both))!r} is in train and in test, one of {len(both)}")
    return splits[0], splits[1]


def _differs(row: Downstream, train: torch.Tensor, test: torch.Tensor) -> str | None:
    """How a set with these labels is not the published one, in a few words for a table."""
    single = train.ndim == 1
    counts = torch.cat([train, test]).unique(return_counts=True)[1].tolist() if single else []
    classes = len(counts) if single else row.classes
    if (classes, len(train), len(test)) == (row.classes, row.train, row.test):
        return None
    even = len(set(counts)) == 1 and counts[0] * row.classes != row.train + row.test
    words = f"{counts[0]} a class" if even else f"{len(train):,} + {len(test):,} images"
    return words if classes == row.classes else f"{classes} of {row.classes} classes, {words}"
