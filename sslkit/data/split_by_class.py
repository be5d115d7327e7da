"""How the sets lie on disk whose classes are split in two, to train on and to test with."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sslkit.data.layouts import (
    Listing,
    class_folders,
    items_of,
    naming,
    refuse_empty,
    refuse_outside,
)

INSHOP = "In-shop_Clothes_Retrieval_Benchmark"
STATUSES = ("train", "query", "gallery")
Named = list[tuple[Path, str]]  # images, each with the name of its class


def halves(classes: Sequence[str], items: Sequence[tuple[Path, Any]]) -> Listing:
    """The images of the first half of the classes, and those of the second, as numbered before."""
    cut = len(classes) // 2
    train = [item for item in items if item[1] < cut]
    return Listing(classes, train, [item for item in items if item[1] >= cut])


def numbered(train: Named, test: Named) -> Listing:
    """The classes numbered as they come, those to train with first."""
    number: dict[str, int] = {}
    first, second = (
        [(path, number.setdefault(name, len(number))) for path, name in part]
        for part in (train, test)
    )
    return Listing(list(number), first, second)


def sop(root: Path) -> Listing:
    """Stanford Online Products (Oh Song et al. 2016, arXiv:1511.06452): a list file a split."""
    folder = root / "Stanford_Online_Products"

    def images(file: str) -> Named:
        rows = table(folder / file, "image_id class_id super_class_id path")
        with naming(folder / file):
            refuse_outside([folder / path for *_, path in rows], folder)
        return [(folder / path, name) for _, name, _, path in rows]

    return numbered(images("Ebay_train.txt"), images("Ebay_test.txt"))


def inshop(root: Path) -> Listing:
    """In-Shop Clothes Retrieval (Liu et al. 2016, CVPR); its images in Img, or beside it."""
    folder = root / INSHOP
    stored = folder / "Img" if (folder / "Img" / "img").is_dir() else folder
    file = folder / "Eval" / "list_eval_partition.txt"
    parts: dict[str, Named] = {status: [] for status in STATUSES}
    for path, item, status in table(file, "image_name item_id evaluation_status", counted=True):
        if status not in parts:
            raise ValueError(f"{file.name} has the status {status!r}, none of {STATUSES}")
        parts[status].append((stored / path, item))
    for status in (status for status, images in parts.items() if not images):
        raise ValueError(f"{file.name} has no image of the status {status!r}")
    train, query, gallery = parts.values()
    queries = {path for path, _ in query}
    with naming(file):
        refuse_outside([path for images in parts.values() for path, _ in images], stored)
        if both := queries & {path for path, _ in gallery}:
            text = f"{str(min(both))!r} is a query and in the gallery, one of {len(both)}"
            raise ValueError(text)
    return numbered(train, query + gallery)._replace(queries=queries)


def omniglot(root: Path) -> Listing:
    """Omniglot (Lake et al. 2015, Science) as torchvision unpacks it, by the authors' alphabets.

    A class is a character of an alphabet. Without the evaluation alphabets the characters of the
    background are halved; of it there may be the two small sets alone, which have images in common.
    """
    folder = root / "omniglot-py"
    whole, evaluation = folder / "images_background", folder / "images_evaluation"
    small = [folder / f"images_background_small{i}" for i in (1, 2)]
    train = _characters([whole] if whole.is_dir() or not small[0].is_dir() else small)
    if not evaluation.is_dir():
        return halves(list(train), items_of(train))
    both = (train, _characters([evaluation]))
    return numbered(*([(p, name) for name, paths in x.items() for p in paths] for x in both))


def _characters(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """alphabet/character -> images, sorted; of images of one name in it, the first folder's."""
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for alphabet in (p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."):
            characters = class_folders(alphabet)
            refuse_empty(alphabet, characters)
            for name, paths in characters.items():
                images = {path.relative_to(alphabet).as_posix(): path for path in paths}
                character = f"{alphabet.name}/{name}"
                found[character] = images | found.get(character, {})
    return {name: [found[name][i] for i in sorted(found[name])] for name in sorted(found)}


def halved_folders(folder: Path) -> Listing:
    """Any folder of folders of images, one a class, the classes sorted by name."""
    if not folder.is_dir():
        text = "classes:DIR is a folder that has a folder of images a class"
        raise FileNotFoundError(f"no folder {str(folder)!r}: {text}")
    found = class_folders(folder)
    if len(found) < 4:
        raise ValueError(
            f"classes:{folder} takes 4 folders of images or more, one a class, half to train and "
            f"half to test with, not {len(found)}; folder:DIR is one with train/ and test/ in it"
        )
    refuse_empty(folder, found)
    return halves(list(found), items_of(found))


def table(file: Path, head: str, *, counted: bool = False) -> list[list[str]]:
    """The rows of a list file, which names its columns above them, and may count them first."""
    with naming(file):
        text = file.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    count = lines.pop(0).strip() if counted and lines else ""
    if not lines or lines[0].split() != head.split():
        raise ValueError(f"{file.name} has no line {head!r} above its rows")
    rows = [line.split() for line in lines[1:]]
    for row in (row for row in rows if len(row) != len(head.split())):
        raise ValueError(f"{file.name} has the row {' '.join(row)!r}, which is not {head!r}")
    if counted and count != str(len(rows)):
        raise ValueError(f"{file.name} has {len(rows)} rows, and says {count!r}")
    return rows
