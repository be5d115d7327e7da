"""Any labelled image set of Hugging Face ``datasets``: ``hf:PATH`` or ``hf:PATH:CONFIG``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import huggingface_hub
import torch

from sslkit.data.images import LabelledImages
from sslkit.data.network import answers
from sslkit.data.storage import FAULTS, one_line

HUB = "https://huggingface.co/datasets"
SAVED = ("dataset_dict.json", "state.json")  # written by save_to_disk
TEST = ("test", "validation")


def folder_and_config(path: str) -> tuple[Path | None, str]:
    """The folder that ``hf:`` names, None for a set of the hub, and the configuration or ""."""
    if (whole := Path(path).expanduser()).is_dir():
        return whole, ""
    place, _, config = path.partition(":")
    folder = Path(place).expanduser()
    return folder if folder.is_dir() else None, config


def read_hugging_face(path: str, size: int) -> tuple[LabelledImages, LabelledImages, str | None]:
    """Its train and test images, or those of validation where test is missing or has no labels.

    A set of the hub is fetched once; where the network does not answer, only what is in the cache
    of ``datasets`` is looked at. No code of a set is ever run.

    Args:
        path: a folder, written by ``save_to_disk`` or of images or Parquet files, or a set of
            the hub; in both cases with ":CONFIG" if it has several.
        size: as of :class:`LabelledImages`.

    Returns:
        train, test, and how the split differs from that, or None.

    Raises:
        FileNotFoundError: the set is not there.
        ValueError: the package ``datasets`` is not installed, or the set is damaged, lacks a
            split, or has not one column of images and one of class labels.
    """
    name = f"hf:{path}"
    parts = _load(path)
    if "train" not in parts or not set(TEST) & parts.keys():
        raise ValueError(f"{name} needs the splits train and test, and has {', '.join(parts)}")
    train = _images(parts["train"], name, size)
    for split in (split for split in TEST if split in parts):
        test = _images(parts[split], name, size)
        if not (test.labels >= 0).any():  # of some sets the hub keeps the test labels back
            continue
        if train.classes != test.classes:
            raise ValueError(f"{name} has other classes in train than in {split}")
        return train, test, None if split == "test" else f"scored on its {split} split"
    raise ValueError(f"{name} has no labels to test with: all are missing")


def _load(path: str) -> dict[str, Any]:
    """The splits by their names."""
    try:
        import datasets
    except ModuleNotFoundError:
        text = "is read by the package datasets, which is not installed: pip install 'sslkit[hf]'"
        raise ValueError(f"hf:{path} {text}") from None
    folder, config = folder_and_config(path)
    offline = folder is not None or not answers(huggingface_hub.constants.ENDPOINT)
    # the progress bars are for a person who waits, not for a log
    silence = nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO())
    try:
        with silence, _offline(datasets.config) if offline else nullcontext():
            if folder and any((folder / file).is_file() for file in SAVED):
                parts = datasets.load_from_disk(str(folder))
            else:
                place = str(folder or path.partition(":")[0])
                parts = datasets.load_dataset(place, config or None)
    except OSError as error:
        where = "is no folder, nor in the cache of datasets, and the hub does not answer"
        why = where if offline and not folder else one_line(error)
        raise FileNotFoundError(f"hf:{path} cannot be had: {why} (see {HUB})") from error
    except (*FAULTS, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"hf:{path} cannot be read: {one_line(error)}") from error
    if not isinstance(parts, dict):
        raise ValueError(f"hf:{path} is one split: save a DatasetDict of train and test")
    return parts


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    """Neither ``datasets`` nor the hub's client asks the network for anything in here."""
    places: list[Any] = [config, huggingface_hub.constants]
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _images(part: Any, name: str, size: int) -> LabelledImages:
    """One split: the column of type Image, and the one of type ClassLabel."""
    import datasets

    found = []
    for kind in (datasets.Image, datasets.ClassLabel):
        columns = [c for c, feature in part.features.items() if isinstance(feature, kind)]
        if len(columns) != 1:
            text = f"{name} needs one column of type {kind.__name__} and has {len(columns)}"
            raise ValueError(f"{text}: its columns are {', '.join(part.features)}")
        found += columns
    image, label = found
    values = part.with_format(None).select_columns([label])[:][label]
    labels = torch.tensor([-1 if value is None else value for value in values], dtype=torch.int64)
    encoded = part.with_format(None).select_columns([image])
    files = _Files(encoded.cast_column(image, datasets.Image(decode=False)), image)
    images = LabelledImages(files, labels, part.features[label].names, size, name)
    images.fingerprint = part._fingerprint
    return images


class _Files:
    """The images of a column, as they are encoded."""

    def __init__(self, part: Any, column: str) -> None:
        self.part, self.column = part, column

    def __getitem__(self, index: int, /) -> Path | BytesIO:
        value = self.part[index][self.column] or {}
        if value.get("bytes") is not None:
            return BytesIO(value["bytes"])
        return Path(value.get("path") or "no image")
