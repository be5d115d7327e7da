"""The 12 sets of the SimCLR transfer table (Chen et al. 2020, appendix B.8; arXiv:2002.05709)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import datasets as tv

from sslkit.data import layouts
from sslkit.data.cropped import Cropped
from sslkit.data.datasets import CIFAR
from sslkit.data.images import LabelledImages
from sslkit.data.layouts import Listing, by_mat, by_torchvision
from sslkit.data.storage import FAULTS, one_line


class Downstream(NamedTuple):
    """A row: what is measured on the set, its published sizes, where it lies."""

    title: str
    metric: str  # a name in sslkit.evaluation.metrics.METRICS
    classes: int
    train: int
    test: int
    read: Callable[[Path], Listing] | None  # None: in memory, as ``load`` reads it
    folder: str  # under root, as torchvision or the authors unpack it
    homepage: str


Pair = tuple[LabelledImages, LabelledImages]  # to train on, to test with
VGG = "https://www.robots.ox.ac.uk/~vgg/data"
TEST = ("test",)
# fmt: off
DOWNSTREAM = {
    "food101": Downstream("Food-101", "accuracy", 101, 75_750, 25_250,
        partial(by_torchvision, tv.Food101, ("train",), TEST),
        "food-101", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"),
    "cifar10": Downstream("CIFAR-10", "accuracy", 10, 50_000, 10_000,
        None, "cifar-10-batches-py", CIFAR),
    "cifar100": Downstream("CIFAR-100", "accuracy", 100, 50_000, 10_000,
        None, "cifar-100-python", CIFAR),
    "birdsnap": Downstream("Birdsnap", "accuracy", 500, 47_386, 2_443,
        layouts.birdsnap, "birdsnap", "http://thomasberg.org"),
    "sun397": Downstream("SUN397", "accuracy", 397, 19_850, 19_850,
        layouts.sun397, "SUN397", "https://vision.princeton.edu/projects/2010/SUN/"),
    "stanford_cars": Downstream("Stanford Cars", "accuracy", 196, 8_144, 8_041,
        partial(by_mat, tv.StanfordCars, ("train",), TEST),
        "stanford_cars", "https://github.com/pytorch/vision/issues/7545"),  # the page is gone
    "fgvc_aircraft": Downstream("FGVC Aircraft", "mean_per_class", 100, 6_667, 3_333,
        partial(by_torchvision, tv.FGVCAircraft, ("trainval",), TEST),  # its default: variants
        "fgvc-aircraft-2013b", f"{VGG}/fgvc-aircraft/"),
    "voc2007": Downstream("VOC2007", "map11", 20, 5_011, 4_952,
        layouts.voc2007, "VOCdevkit/VOC2007", "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"),
    "dtd": Downstream("DTD", "accuracy", 47, 3_760, 1_880,
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


def read_row(name: str, row: Downstream, root: Path, size: int) -> Pair:
    """The train and the test images of a set of files, nothing ever fetched.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: files that are missing, damaged or outside the set's folder, or an image in
            both splits.
    """
    folder = root / row.folder
    assert row.read is not None
    if not folder.is_dir():  # asked first: torchvision's Caltech101 would make it
        text = f"{name} is not at {folder}: get it from {row.homepage} and unpack it there"
        raise FileNotFoundError(f"{text}, or name the folder it lies in by root or SSLKIT_DATA")
    try:
        return images_of(row.read(root), folder, size)
    except FAULTS as error:
        text = f"{name} at {folder} is damaged or incomplete ({one_line(error)})"
        raise ValueError(f"{text}: unpack {row.homepage} there") from error


def images_of(listing: Listing, folder: Path, size: int) -> Pair:
    """The data sets, once every path is found to be inside the folder, there, and in one split."""
    splits, seen = [], []
    for split, items in (("train", listing.train), ("test", listing.test)):
        paths = [path for path, _ in items]
        layouts.refuse_outside(paths, folder)
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            text = f"{len(missing)} of the {len(paths)} images to {split} with are missing"
            raise ValueError(f"{text}, the first is {missing[0]!r}")
        if not paths:
            raise ValueError(f"no image to {split} with in {str(folder)!r}")
        labels = torch.tensor([label for _, label in items], dtype=torch.int64)
        splits.append(_labelled(paths, labels, listing, size))
        seen.append(set(paths))
    if both := seen[0] & seen[1]:
        raise ValueError(f"{str(min(both))!r} is in train and in test, one of {len(both)}")
    if listing.queries:
        splits[1].queries = torch.tensor([path in listing.queries for path, _ in listing.test])
    return splits[0], splits[1]


def _labelled(paths: list[Path], labels: Tensor, listing: Listing, size: int) -> LabelledImages:
    """One split, its images cut to their boxes where they have some."""
    if listing.boxes is None:
        return LabelledImages(paths, labels, listing.classes, size)
    cropped = Cropped(paths, [listing.boxes[path] for path in paths])
    data = LabelledImages(cropped, labels, listing.classes, size)
    data.paths, data.fingerprint = paths, cropped.fingerprint
    return data


def differs(row: Downstream, train: Tensor, test: Tensor) -> str | None:
    """How a set with these labels is not the published one, in a few words for a table.

    >>> differs(DOWNSTREAM["dtd"], torch.arange(47).repeat(8), torch.arange(47).repeat(8))
    '16 a class'
    """
    single = train.ndim == 1
    counts = torch.cat([train, test]).unique(return_counts=True)[1].tolist() if single else []
    classes = len(counts) if single else row.classes
    if (classes, len(train), len(test)) == (row.classes, row.train, row.test):
        return None
    even = len(set(counts)) == 1 and counts[0] * row.classes != row.train + row.test
    words = f"{counts[0]} a class" if even else f"{len(train):,} + {len(test):,} images"
    return words if classes == row.classes else f"{classes} of {row.classes} classes, {words}"
