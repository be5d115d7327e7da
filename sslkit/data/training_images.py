"""The images of a run by name: a set of ``load``, or the train split of one of ``load_splits``."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from sslkit.data.array import ArrayDataset
from sslkit.data.datasets import DATASETS, load
from sslkit.data.folder import ImageFolder
from sslkit.data.images import LabelledImages
from sslkit.data.splits import about, check_name, load_splits
from sslkit.data.storage import check_choice

SIZE = 224  # pixels a side of what is read from files

TrainingImages = ArrayDataset | ImageFolder | LabelledImages


def training_images(
    name: str,
    split: str = "train",
    *,
    root: str | Path | None = None,
    size: int | None = None,
    limit: int | None = None,
) -> TrainingImages:
    """The images of a set that is trained on, those in files not decoded yet.

    Args:
        name: a key of ``DATASETS``, as :func:`load` takes it, or a name of :func:`load_splits`,
            of whose classes only those are counted that its train split shows.
        split, root, size, limit: as of :func:`load`; a set of ``load_splits`` has "train" alone,
            and its images are 224 pixels a side unless ``size`` says otherwise.

    Raises:
        ValueError: an unknown name or split, a set of several labels an image, or as these two.
        FileNotFoundError: the set is not there and cannot be fetched.

    >>> training_images("shapes", limit=8).images.shape
    torch.Size([8, 3, 32, 32])
    """
    if name in DATASETS:
        return load(name, split, root=root, size=size, limit=limit)
    check_name(name, DATASETS)
    check_choice(f"split of {name}", split, ("train",))
    if about(name).metric == "map11":
        raise ValueError(f"{name} has several labels an image, and a run is of sets that have one")
    data = load_splits(name, root=root, size=SIZE if size is None else size).train
    assert isinstance(data, LabelledImages)  # those in memory are in DATASETS
    shown, data.labels = data.labels.unique(return_inverse=True)
    data.classes = tuple(data.classes[label] for label in shown.tolist())
    return data if limit is None else data.head(limit)


def decoded(data: ImageFolder | LabelledImages, threads: int) -> ArrayDataset:
    """Every image, decoded once into one uint8 tensor, with the labels and classes there are."""
    images = torch.empty(len(data), 3, data.size, data.size, dtype=torch.uint8)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        rows = pool.map(lambda i: data[i][0], range(len(data)))
        bar = tqdm(rows, "decoding", len(data), unit="image", delay=2, disable=None)
        for i, image in enumerate(bar):
            images[i] = image
    return ArrayDataset(images, getattr(data, "labels", None), data.classes)
