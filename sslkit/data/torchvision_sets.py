"""Any labelled set of torchvision by the name of its class: ``torchvision:GTSRB``."""

import inspect
import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets as tv
from tqdm import tqdm

from sslkit.data.images import LabelledImages
from sslkit.data.storage import FAULTS, check_choice, one_line

PAGE = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.{}.html"
TRAIN = ("trainval", "train-standard", "train")  # the first that a class has, and so of TEST
TEST = ("test", "val", "valid")
KEPT = ("_labels", "targets", "labels", "_samples", "samples")  # lists of labels in its classes


def usual_classes() -> list[str]:
    """The classes that need no more than a root, and split= or train=.

    >>> {"GTSRB", "SVHN", "ImageNet"} < set(usual_classes()), "LSUN" in usual_classes()
    (True, False)
    """

    def usual(cls: Any) -> bool:
        if not isinstance(cls, type) or "._" in cls.__module__:  # optical flow, stereo
            return False
        takes = inspect.signature(cls).parameters.values()
        needs = {p.name for p in takes if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
        return needs == {"root"} and bool({"split", "train"} & {p.name for p in takes})

    return [name for name in tv.__all__ if usual(getattr(tv, name))]


def read_torchvision(
    name: str, root: Path, size: int
) -> tuple[LabelledImages, LabelledImages, str | None]:
    """Its train and test images, and how the split differs from that; nothing is ever fetched.

    Args:
        name: of a class in ``torchvision.datasets``, of ``usual_classes``.
        root: what the class takes as root. size: as of :class:`LabelledImages`.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: another class, damaged files, or targets that are no class numbers.
    """
    check_choice("class of torchvision.datasets", name, usual_classes())
    what, cls = f"torchvision:{name}", getattr(tv, name)
    try:
        if not root.is_dir():
            raise FileNotFoundError("no such folder")
        _, train = _open(cls, TRAIN, root)
        split, test = _open(cls, TEST, root)
    except (OSError, RuntimeError) as error:
        text = f"{what} is not under {root} ({one_line(error)}): lay it out there as {name} does"
        where = "or name the folder it lies in by root or SSLKIT_DATA"
        raise FileNotFoundError(f"{text} ({PAGE.format(name)}), {where}") from error
    except FAULTS as error:
        raise ValueError(f"{what} under {root} cannot be read: {one_line(error)}") from error
    try:
        found = [(_labels(part, what), _names(part)) for part in (train, test)]
        classes, numbers = _joined(found)
    except FAULTS as error:
        raise ValueError(f"{what} under {root} cannot be used: {one_line(error)}") from error

    def images(part: Any, labels: list[int]) -> LabelledImages:
        pictures = _Pictures(part)
        sources: Any = [pictures[i] for i in range(len(part))] if _loads(cls) else pictures
        return LabelledImages(sources, torch.tensor(labels), classes, size, what)

    words = None if split == "test" else f"scored on its {split} split"
    return images(train, numbers[0]), images(test, numbers[1]), words


class _Pictures:
    """The images of a data set of (image, label) pairs."""

    def __init__(self, pairs: Dataset) -> None:
        self.pairs = pairs

    def __getitem__(self, index: int, /) -> Path | Image.Image:
        image = self.pairs[index][0]
        return Path(image) if isinstance(image, str | Path) else image


def _loads(cls: Any) -> bool:
    """Whether it takes a loader: one that hands the path back decodes no image."""
    return "loader" in inspect.signature(cls).parameters or issubclass(cls, tv.ImageFolder)


def _open(cls: Any, splits: tuple[str, ...], root: Path) -> tuple[str, Any]:
    """The first of these splits that the class has."""
    takes = inspect.signature(cls).parameters
    options: dict[str, Any] = {"loader": Path} if _loads(cls) else {}
    options |= {"download": False} if "download" in takes else {}
    if "split" not in takes:
        train = splits is TRAIN
        return "train" if train else "test", cls(root, train=train, **options)
    for split in splits[:-1]:
        try:
            return split, cls(root, split=split, **options)
        except ValueError as error:
            if "for argument split" not in str(error):
                raise
    return splits[-1], cls(root, split=splits[-1], **options)


def _labels(part: Any, what: str) -> list[int]:
    """The label of each image, from a list where the class keeps one that agrees with its items."""
    if not len(part):
        raise ValueError("it has no images")
    ends = _numbers(part[i][1] for i in (0, len(part) - 1))
    for kept in (getattr(part, name, None) for name in KEPT):
        if isinstance(kept, Iterable):
            values = [row[1] if isinstance(row, tuple) and len(row) == 2 else row for row in kept]
            numbers = _numbers(values)
            if numbers and len(numbers) == len(part) and [numbers[0], numbers[-1]] == ends:
                return numbers
    bar = tqdm(range(len(part)), f"labels of {what}", delay=2, disable=None, unit="image")
    values = [part[i][1] for i in bar]
    numbers = _numbers(values)
    if numbers is None:
        first = f"the first is {values[0]!r:.60}"
        raise ValueError(f"its images have no class numbers for labels, {first}")
    return numbers


def _numbers(values: Iterable[Any]) -> list[int] | None:
    """Integers of any library as Python's, or None where one is none."""
    try:
        return [operator.index(value) for value in values]
    except TypeError:
        return None


def _names(part: Any) -> list[str] | None:
    """What it calls its classes; of ImageNet several words each."""
    names = getattr(part, "classes", None)
    return names and [name if isinstance(name, str) else ", ".join(name) for name in names]


def _joined(
    parts: list[tuple[list[int], list[str] | None]],
) -> tuple[list[str], list[list[int]]]:
    """One numbering: some classes number only what their split holds, and some name nothing."""
    (_, names), (_, others) = parts
    for labels, own in parts:
        if own and not 0 <= min(labels) <= max(labels) < len(own):
            raise ValueError(f"a label is outside its {len(own)} classes")
    if names and names == others:
        return names, [labels for labels, _ in parts]
    if names and others:
        found = [[own[label] for label in labels] for labels, own in parts if own]
        classes = list(dict.fromkeys([*names, *others]))
    else:
        found = [[str(label) for label in labels] for labels, _ in parts]
        classes = [str(label) for label in sorted({x for labels, _ in parts for x in labels})]
    number = {name: i for i, name in enumerate(classes)}
    return classes, [[number[name] for name in labels] for labels in found]
