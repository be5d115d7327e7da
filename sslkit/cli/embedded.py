"""A data set or a folder of images through a backbone, as ``embed`` and ``neighbours`` need it."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.utils.data import Dataset

from sslkit.backbones import Backbone
from sslkit.cli.config import one_line
from sslkit.cli.targets import device_of, load_target
from sslkit.data import (
    DATASETS,
    ArrayDataset,
    ImageError,
    ImageFolder,
    LabelledImages,
    load,
    load_splits,
)
from sslkit.data.storage import data_root
from sslkit.evaluation import extract
from sslkit.views import EvaluationView

DAMAGED = -9  # the label of an image that cannot be read


class Embedded(NamedTuple):
    """The images of a set that can be read, and their features."""

    dataset: ArrayDataset | LabelledImages
    rows: Tensor  # int64 (N,), of the data set
    features: Tensor  # float32 (N, D)
    labels: Tensor | None  # int64 (N,) or (N, C)
    paths: list[str] | None  # N, relative to the folder or to the root of the sets
    about: dict[str, Any]  # of what, by what: plain data
    backbone: Backbone  # on the device
    view: EvaluationView


def parser_of() -> ArgumentParser:
    """The options that both commands have."""
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("target", type=str)
    parser.add_argument("--data", type=str, required=True)
    parser.add_argument("--split", type=str | None, default=None)
    parser.add_argument("--root", type=str | None, default=None)
    parser.add_argument("--limit", type=int | None, default=None)
    parser.add_argument("--device", type=str | None, default=None)
    parser.add_argument("--overwrite", action="store_true")
    return parser


def parsed(parser: ArgumentParser, argv: list[str], command: str) -> Any:
    """The options of a command; ValueError, in one line, where they are not valid."""
    try:
        args = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        text = one_line(str(error))
        raise ValueError(f"{text} ('sslkit {command} --help' says more)") from None
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit must be at least 1, not {args.limit}")
    return args


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise ValueError where a file cannot be written, or is there and is to stay."""
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder, not a file")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists: give another --out, or --overwrite to replace it")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--out {out} cannot be written: {folder} is no folder to write in")


def embedded(args: argparse.Namespace) -> Embedded:
    """Features of what the options name. An image that cannot be read has no row, and is named.

    Raises:
        ValueError, FileNotFoundError: no such target or set, or no image that can be read.
    """
    device = device_of(args.device)
    backbone, card = load_target(args.target)
    dataset, base, lost = images_of(args, card["size"])
    view = EvaluationView(card["size"], card["normalize"], grayscale=card.get("grayscale", False))
    features, labels = extract(
        backbone.to(device),
        _Marked(dataset) if isinstance(dataset, LabelledImages) else dataset,
        view,
        device=device,
        progress=f"{args.data} features",
    )
    damaged = (labels == DAMAGED).view(len(labels), -1).all(1)
    rows = (~damaged).nonzero().flatten()
    files = getattr(dataset, "paths", None)
    names = [_readable(path, base) for path in files] if files else None
    lost += [names[i] if names else f"image {i}" for i in damaged.nonzero().flatten().tolist()]
    if not len(rows):
        raise ValueError(f"no image of {args.data} can be read; the first is {lost[0]!r}")
    if lost:
        named = ", ".join([*lost[:3], *["..."] * (len(lost) > 3)])
        count = f"{len(lost):,} of {len(lost) + len(rows):,} images"
        print(f"{count} cannot be read and are left out: {named}", file=sys.stderr)
        features, labels = features[rows], labels[rows]
        names = [names[i] for i in rows.tolist()] if names else None
    about = {key: getattr(args, key) for key in ("target", "data", "limit")}
    about["split"] = None if dataset.classes == () else args.split or "train"
    about |= {key: card.get(key) for key in ("size", "normalize", "method", "step", "commit")}
    about["classes"] = dataset.classes or None
    unlabelled = labels.ndim == 1 and bool((labels < 0).all())
    labels = None if unlabelled else labels
    return Embedded(dataset, rows, features, labels, names, about, backbone, view)


def images_of(
    args: argparse.Namespace, size: int
) -> tuple[ArrayDataset | LabelledImages, Path, list[str]]:
    """The images asked for, the folder that their paths are given in, and those left out so far.

    A folder with ``train/`` and ``test/`` has classes and splits, any other has neither.
    """
    kind, _, rest = args.data.partition(":")
    split = args.split or "train"
    if args.data in DATASETS and kind != "folder":
        return load(args.data, split, root=args.root, limit=args.limit), Path(), []
    base, name = data_root(args.root), args.data
    if kind == "folder":
        if not (rest or args.root):
            raise ValueError("--data folder:DIR names a folder of images, and DIR is missing")
        base = Path(rest or args.root).expanduser()
        name = f"folder:{base}"
        if not all((base / part).is_dir() for part in ("train", "test")):
            if args.split:
                raise ValueError(f"--split {split} of {base}: it has no train/ and test/")
            with _hushed():  # what cannot be read is said at the end, with what turns out damaged
                found = ImageFolder(base, size)
            labels = torch.full((len(found),), -1)
            return (
                LabelledImages(found.paths, labels, (), size).head(args.limit),
                base,
                [*found.skipped],
            )
    if split not in ("train", "test"):
        raise ValueError(f"--split must be train or test, not {split!r}")
    dataset = getattr(load_splits(name, root=args.root, size=size), split)
    return dataset.head(args.limit), base, []


@contextmanager
def _hushed() -> Iterator[None]:
    logger = logging.getLogger("sslkit")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Marked(Dataset):
    """Images of which those that cannot be read are black, and labelled so in any process."""

    def __init__(self, dataset: LabelledImages) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        try:
            return self.dataset[index]
        except ImageError:
            black = torch.zeros(3, self.dataset.size, self.dataset.size, dtype=torch.uint8)
            label = torch.full_like(self.dataset.labels[index], DAMAGED)
            return black, label if label.ndim else DAMAGED


def _readable(path: Path, base: Path) -> str:
    """A path as text that any file can hold, whatever bytes its name is of."""
    path = path.relative_to(base) if path.is_relative_to(base) else path
    return path.as_posix().encode("utf-8", "backslashreplace").decode()
