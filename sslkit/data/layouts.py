"""How the downstream sets lie on disk: list files and folders -> paths, labels, class names."""

import hashlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from torchvision import datasets as tv

from sslkit.data.cropped import Box
from sslkit.data.folder import SUFFIXES
from sslkit.data.storage import one_line

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


class Listing(NamedTuple):
    """A set as its files list it, no image opened: a label is a number, for VOC 20 marks."""

    classes: Sequence[str]
    train: Sequence[tuple[Path, Any]]
    test: Sequence[tuple[Path, Any]]
    queries: Collection[Path] = ()  # test images that are searched for among the others
    boxes: Mapping[Path, Box] | None = None  # what each image is cut to


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """What is wrong with a list file is said with its name."""
    try:
        yield
    except (ValueError, LookupError, TypeError, OSError, zlib.error) as error:
        if getattr(error, "filename", None):  # it is named
            raise
        raise ValueError(f"{file.name}: {one_line(error)}") from error


def refuse_outside(paths: Iterable[str | Path], folder: Path) -> None:
    """ValueError if a path made from a list file is not in the folder of its set."""
    for path in map(Path, paths):
        if not path.is_relative_to(folder) or ".." in path.relative_to(folder).parts:
            raise ValueError(f"its lists name {str(path)!r}, outside {str(folder)!r}")


def by_torchvision(cls: Any, train: Sequence[str], test: Sequence[str], root: Path) -> Listing:
    """As torchvision's class reads it, several of its splits joined to one.

    They are joined by class name: some classes number only what their split holds.
    """
    parts = [[_named(cls, split, root) for split in splits] for splits in (train, test)]
    classes = list(dict.fromkeys(name for part in parts for names, _ in part for name in names))
    number = {name: i for i, name in enumerate(classes)}
    first, second = (
        [(path, number[name]) for _, pairs in part for path, name in pairs] for part in parts
    )
    return Listing(classes, first, second)


def _named(cls: Any, split: str, root: Path) -> tuple[Sequence[str], list[tuple[Path, str]]]:
    """The classes of one split in their order, and its images, each with its class."""
    pairs: Iterable[tuple[Any, Any]]
    if cls is tv.OxfordIIITPet:  # the only one that takes no loader
        data = cls(root, split)
        pairs = zip(data._images, data._labels, strict=True)
        names = dict(zip(sorted(set(data._labels)), data.classes, strict=True))
    else:  # a loader that hands the path back, so that no image is decoded
        data = cls(root, split, loader=Path)
        pairs = (data[i] for i in range(len(data)))
        names = dict(enumerate(data.classes))
    return data.classes, [(Path(path), names[int(label)]) for path, label in pairs]


def by_mat(cls: Any, train: Sequence[str], test: Sequence[str], root: Path) -> Listing:
    """``by_torchvision`` for a set whose lists are .mat files, which scipy reads."""
    from scipy.io.matlab import MatReadError  # slow to import: no other set waits for it

    try:
        return by_torchvision(cls, train, test, root)
    except MatReadError as error:
        raise ValueError(str(error)) from error


def voc2007(root: Path) -> Listing:
    """A mark for each of the 20 classes: 1 present, 0 absent, -1 present only as difficult."""
    parts = []
    for split in ("trainval", "test"):
        data = tv.VOCDetection(root, year="2007", image_set=split)
        refuse_outside(data.annotations, root / "VOCdevkit" / "VOC2007")
        pairs = zip(data.images, data.annotations, strict=True)
        parts.append([(Path(image), _marks(annotation)) for image, annotation in pairs])
    return Listing(VOC_CLASSES, parts[0], parts[1])


def _marks(annotation: str) -> tuple[int, ...]:
    try:
        objects = ElementTree.parse(annotation).findall("object")
    except ElementTree.ParseError as error:
        raise ValueError(f"{annotation}: {error}") from error
    marks = dict.fromkeys(VOC_CLASSES, 0)
    for thing in objects:
        name = thing.findtext("name", "").strip()
        if name not in marks:
            raise ValueError(f"{annotation}: {name!r} is none of the 20 classes")
        difficult = thing.findtext("difficult", "0").strip() == "1"
        marks[name] = (marks[name] or -1) if difficult else 1
    return tuple(marks.values())


def sun397(root: Path) -> Listing:
    """The first of the authors' ten partitions; their paths begin with a slash: /a/abbey/x.jpg."""
    folder = root / "SUN397"
    if not (folder / "Partitions").is_dir():
        raise FileNotFoundError("no folder Partitions in it: unpack the authors' Partitions.zip so")
    names, *lists = (
        (folder / "Partitions" / file).read_text(encoding="utf-8").split()
        for file in ("ClassName.txt", "Training_01.txt", "Testing_01.txt")
    )
    number = {name: i for i, name in enumerate(names)}
    first, second = (
        [(folder / p[1:], number[p.rpartition("/")[0]]) for p in paths] for paths in lists
    )
    return Listing([name[3:] for name in names], first, second)


def birdsnap(root: Path) -> Listing:
    """As the authors' get_birdsnap.py stores it; what Flickr no longer has is left out."""
    folder = root / "birdsnap"
    stored = folder / "images" if (folder / "images").is_dir() else folder / "download" / "images"

    def table(name: str) -> list[dict[str, str]]:
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        head, *rows = (line.split("\t") for line in text.splitlines())
        return [dict(zip(head, row, strict=False)) for row in rows]

    species, rows = table("species.txt"), table("images.txt")
    number = {row["id"]: i for i, row in enumerate(species)}
    tested = {row["path"] for row in table("test_images.txt")}
    there = [row for row in rows if (stored / row["path"]).is_file()]
    train, test = (
        [(stored / r["path"], number[r["species_id"]]) for r in there if (r["path"] in tested) == t]
        for t in (False, True)
    )
    return Listing([row["common"] for row in species], train, test)


def caltech101(root: Path, n: int = 30, seed: int = 0) -> Listing:
    """``n`` images a class to train with, the rest to test with: our draw, the same for ever.

    3,060 is 30 x 102, and 3,060 + 6,084 is every image: the background, which torchvision leaves
    out, is the 102nd class. A class of no more than ``n``, which the whole set has not, is halved;
    a folder of one image is no class. The draw hashes names, so no other file can change it.
    """

    def lot(path: Path) -> bytes:
        return hashlib.sha256(f"{seed}/{path.parent.name}/{path.name}".encode()).digest()

    found = class_folders(root / "caltech101" / "101_ObjectCategories")
    found = {name: sorted(paths, key=lot) for name, paths in found.items() if len(paths) > 1}
    cut = {name: n if len(paths) > n else len(paths) // 2 for name, paths in found.items()}
    train = items_of({name: sorted(paths[: cut[name]]) for name, paths in found.items()})
    test = items_of({name: sorted(paths[cut[name] :]) for name, paths in found.items()})
    return Listing(list(found), train, test)


def train_test_folders(root: Path) -> Listing:
    """``root/train`` and ``root/test``, in each the same folders of images, one a class."""
    parts = root / "train", root / "test"
    for folder in parts:
        if not folder.is_dir():
            text = "a set needs train/ and test/, in each a folder of images a class"
            raise FileNotFoundError(f"no folder {str(folder)!r}: {text}")
    train, test = map(class_folders, parts)
    if odd := sorted(train.keys() ^ test.keys()):
        side = "train" if odd[0] in train else "test"
        text = f"of {len(odd)} in one of them, the first is {odd[0]!r}, only in {side}/"
        raise ValueError(f"the classes in train/ and test/ of {str(root)!r} differ: {text}")
    for folder, found in zip(parts, (train, test), strict=True):
        refuse_empty(folder, found)
    return Listing(list(train), items_of(train), items_of(test))


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Name -> images, sorted, of each folder in this one; hidden files and folders are no part."""

    def images(entry: Path) -> list[Path]:
        files = (p for p in entry.rglob("*") if p.suffix.lower() in SUFFIXES)
        return sorted(p for p in files if "/." not in p.relative_to(folder).as_posix())

    entries = sorted(e for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))
    return {entry.name: images(entry) for entry in entries}


def refuse_empty(folder: Path, found: dict[str, list[Path]]) -> None:
    """ValueError if one of the ``class_folders`` of a folder has no image."""
    for name in (name for name, paths in found.items() if not paths):
        raise ValueError(f"no image in {str(folder / name)!r}")


def items_of(found: dict[str, list[Path]]) -> list[tuple[Path, int]]:
    """The images of ``class_folders``, each with the number of its class."""
    return [(path, i) for i, paths in enumerate(found.values()) for path in paths]
