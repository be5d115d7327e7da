"""Any labelled set in two, to train on and to test with: ``load_splits("flowers102")``."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sslkit.data.array import ArrayDataset
from sslkit.data.class_disjoint import CLASS_DISJOINT
from sslkit.data.datasets import DATASETS, load
from sslkit.data.downstream import DOWNSTREAM, differs, images_of, read_row
from sslkit.data.hugging_face import HUB, folder_and_config, read_hugging_face
from sslkit.data.images import LabelledImages
from sslkit.data.layouts import train_test_folders
from sslkit.data.split_by_class import halved_folders
from sslkit.data.storage import check_choice, data_root
from sslkit.data.torchvision_sets import PAGE, read_torchvision

ROWS = DOWNSTREAM | CLASS_DISJOINT
OTHERS = {"fashion_mnist": "Fashion-MNIST", "stl10": "STL-10", "shapes": "shapes"}
ANY = {"folder": "DIR", "classes": "DIR", "torchvision": "CLASS", "hf": "PATH"}
FOLDERS = {"folder": train_test_folders, "classes": halved_folders}

Labelled = ArrayDataset | LabelledImages


class About(NamedTuple):
    """What a table says of a set."""

    title: str
    metric: str  # a name in sslkit.evaluation.metrics.METRICS
    homepage: str  # "" if there is none


class Splits(NamedTuple):
    """A labelled set in two."""

    train: Labelled
    test: Labelled
    title: str
    metric: str  # a name in sslkit.evaluation.metrics.METRICS
    differs: str | None  # how it is not the published set or split, say "16 a class"
    homepage: str  # "" if there is none


def load_splits(
    name: str, *, root: str | Path | None = None, size: int = 224, limit: int | None = None
) -> Splits:
    """A labelled set by its name, in the split that is published for it.

    Args:
        name: a set of the SimCLR transfer table (``DOWNSTREAM``); one of ``CLASS_DISJOINT``,
            whose test classes no training image shows: ``cub200``, ``cars196``, the same with
            ``_cropped`` after it, each image cut to the object's box, ``sop``, ``inshop`` or
            ``omniglot``; ``fashion_mnist``, ``stl10`` or ``shapes``; or
            ``folder:DIR``, a folder with ``train/`` and ``test/``, in each of which a folder of
            images is a class; ``classes:DIR``, a folder of such classes, by whose names the first
            half trains and the second half tests; ``torchvision:CLASS``, a class of torchvision
            with ``split=`` or ``train=``, such as ``torchvision:GTSRB``; ``hf:PATH`` or
            ``hf:PATH:CONFIG``, a set of Hugging Face ``datasets``, in a folder or of the hub.
        root: where the sets are stored: by default ``$SSLKIT_DATA``, else
            ``~/.cache/sslkit/data``. For "folder" without a DIR, that folder itself.
        size: side in pixels of images that are read from files; those that lie in memory (CIFAR,
            Fashion-MNIST, STL-10, shapes) keep their own.
        limit: keep only so many training images: of files a fixed draw, else the first.

    Returns:
        Both data sets give (uint8 image (3, H, W), label) and have ``labels``, ``classes``; those
        of files have ``queries`` too, which ``inshop`` tests with.

    Raises:
        FileNotFoundError: the set is not there, and is not one that :func:`load` can fetch.
        ValueError: an unknown name, a size or limit below 1, files that are missing, damaged or
            outside the set's folder, an image in both splits, a label outside the classes, a split
            of one class, or a test class without a training image, or with one where there must
            be none.

    >>> import tempfile
    >>> from PIL import Image
    >>> root = tempfile.TemporaryDirectory()
    >>> for folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
    ...     Path(root.name, folder).mkdir(parents=True)
    ...     Image.new("L", (40, 30), 7).save(f"{root.name}/{folder}/1.png")
    >>> pets = load_splits(f"folder:{root.name}", size=8)
    >>> pets.train.classes, pets.test.labels, pets.test[1][0].shape, pets.metric
    (('cat', 'dog'), tensor([0, 1]), torch.Size([3, 8, 8]), 'accuracy')
    >>> root.cleanup()
    """
    for what, value in (("size", size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{what} must be at least 1, got {value!r}")
    name = f"folder:{root}" if name == "folder" and root is not None else name
    check_name(name)
    train, test, words = _read(name, root, size, limit)
    if limit is not None and isinstance(train, LabelledImages):
        train = train.drawn(limit)
    if row := ROWS.get(name):
        words = differs(row, _labels(train), _labels(test))
    elif len(train) == limit:
        which = "drawn" if isinstance(train, LabelledImages) else "first"
        words = "; ".join(filter(None, (words, f"{which} {limit:,} to train with")))
    lacks = "training image" if limit is None else f"image among the {limit} to train with"
    _check(name, train, test, lacks)
    title, metric, homepage = about(name)
    return Splits(train, test, title, metric, words, homepage)


def check_name(name: str, others: Iterable[str] = ()) -> None:
    """Raise ValueError, with the choices, unless it is a name of :func:`load_splits`."""
    kind, _, rest = str(name).partition(":")
    if kind not in ANY or not rest:
        known = dict.fromkeys((*others, *ROWS, *OTHERS, *map(":".join, ANY.items())))
        check_choice("data set", name, tuple(known))


def class_disjoint(name: str) -> bool:
    """Whether a set, by its name, tests with classes that no training image shows.

    >>> class_disjoint("cars196"), class_disjoint("classes:photos"), class_disjoint("cifar10")
    (True, True, False)
    """
    return name in CLASS_DISJOINT or name.startswith("classes:")


def about(name: str) -> About:
    """What is known of a set by its name alone, whether it is there or not.

    >>> about("flowers102")[:2], about("torchvision:GTSRB").title
    (('Flowers-102', 'mean_per_class'), 'GTSRB')
    """
    if row := ROWS.get(name):
        return About(row.title, row.metric, row.homepage)
    if name in OTHERS:
        return About(OTHERS[name], "accuracy", DATASETS[name].homepage)
    kind, _, rest = name.partition(":")
    if kind == "torchvision":
        return About(rest, "accuracy", PAGE.format(rest))
    if kind == "hf" and folder_and_config(rest)[0] is None:
        return About(rest, "accuracy", f"{HUB}/{rest.partition(':')[0]}")
    return About(Path(rest or name).expanduser().resolve().name, "accuracy", "")


def _read(
    name: str, root: str | Path | None, size: int, limit: int | None
) -> tuple[Labelled, Labelled, str | None]:
    """The set as it lies there, and in what its split is not that of its name."""
    kind, _, rest = name.partition(":")
    if name in DATASETS:
        return _in_memory(name, "train", root, limit), _in_memory(name, "test", root, None), None
    if name in ROWS:
        train, test = read_row(name, ROWS[name], data_root(root), size)
        return train, test, None
    if kind in FOLDERS:
        folder = Path(rest).expanduser()
        train, test = images_of(FOLDERS[kind](folder), folder, size)
        return train, test, None
    if kind == "torchvision":
        return read_torchvision(rest, data_root(root), size)
    return read_hugging_face(rest, size)


def _in_memory(name: str, split: str, root: str | Path | None, limit: int | None) -> ArrayDataset:
    """A set of ``DATASETS``, fetched where it is absent; its classes numbered if it names none."""
    data = load(name, split, root=root, limit=limit)
    assert isinstance(data, ArrayDataset)
    assert data.labels is not None
    return ArrayDataset(data.images, data.labels, data.classes or [str(i) for i in range(10)])


def _labels(data: Labelled) -> Tensor:
    assert data.labels is not None
    return data.labels


def _check(name: str, train: Labelled, test: Labelled, lacks: str) -> None:
    """ValueError unless both splits have classes to tell apart, and the right ones in common."""
    classes = train.classes or ()
    trained, tested = _shown(name, "train", train), _shown(name, "test", test)
    both, untrained = trained & tested, tested - trained
    if class_disjoint(name):
        if both:
            raise ValueError(f"{name}: class {classes[min(both)]!r} is in train and in test")
    elif untrained:
        text = f"{name}: {len(untrained)} of the {len(tested)} test classes have no {lacks}"
        raise ValueError(f"{text}, the first is {classes[min(untrained)]!r}")


def _shown(name: str, split: str, data: Labelled) -> set[int]:
    """The classes that an image shows: at least two, and none that is not there."""
    labels, classes = _labels(data), data.classes or ()
    low, high = (0, len(classes) - 1) if labels.ndim == 1 else (-1, 1)
    if outside := labels[(labels < low) | (labels > high)].tolist():
        text = f"{name}: the label {outside[0]} of a {split} image is outside {low} to {high}"
        raise ValueError(f"{text}, one of {len(outside)} such")
    found = labels if labels.ndim == 1 else torch.nonzero(labels == 1)[:, 1]
    shown = set(found.unique().tolist())
    if len(shown) < 2:
        only = ", ".join(repr(classes[i]) for i in shown) or "none"
        text = f"its {len(labels):,} images to {split} with show one class, {only}"
        raise ValueError(f"{name}: {text}: at least two are needed")
    return shown
