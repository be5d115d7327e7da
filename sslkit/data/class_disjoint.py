"""The sets of deep metric learning whose test classes no training image shows.

Of CUB-200-2011 and Cars196 the split (Oh Song et al. 2016; arXiv:1511.06452) is not the authors'
own: the first half of the classes trains, the second half tests.
"""

from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets as tv

from sslkit.data.cropped import checked, four
from sslkit.data.downstream import Downstream
from sslkit.data.layouts import Listing, by_mat, naming, refuse_outside
from sslkit.data.split_by_class import INSHOP, halves, inshop, omniglot, sop

CUB_PAGE = "https://data.caltech.edu/records/65de6-vp158"
CARS_PAGE = "https://github.com/pytorch/vision/issues/7545"
CARS = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}


def cub200(root: Path) -> Listing:
    """CUB-200-2011 as its authors unpack it: lists of "number value", numbers from 1."""
    folder = root / "CUB_200_2011"
    files = ("classes.txt", "images.txt", "image_class_labels.txt")
    names, images, labels = (_values(folder / file) for file in files)
    number = {key: i for i, key in enumerate(names)}
    for path in (path for key, path in images.items() if labels.get(key) not in number):
        raise ValueError(f"image_class_labels.txt gives {path!r} none of the {len(names)} classes")
    items = [(folder / "images" / path, number[labels[key]]) for key, path in images.items()]
    with naming(folder / "images.txt"):
        refuse_outside([path for path, _ in items], folder)
    return halves([name.partition(".")[2] for name in names.values()], items)


def cub200_cropped(root: Path) -> Listing:
    """Its images cut to their bounding boxes: left, top, width and height, from 0."""
    folder = root / "CUB_200_2011"
    images, given = _values(folder / "images.txt"), _values(folder / "bounding_boxes.txt")
    boxes = {}
    for key, path in images.items():
        if key not in given:
            raise ValueError(f"bounding_boxes.txt has no box of {path!r}")
        with naming(folder / "bounding_boxes.txt"):
            left, top, width, height = four(path, given[key].split())
            box = checked(path, (left, top, left + width, top + height))
        boxes[folder / "images" / path] = box
    return cub200(root)._replace(boxes=boxes)


def _values(file: Path) -> dict[str, str]:
    with naming(file):
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [line.split(maxsplit=1) for line in lines if line.strip()]
        for row in (row for row in rows if len(row) != 2):
            raise ValueError(f"the row {row[0]!r} is no number and a value")
    return dict(rows)


def cars196(root: Path) -> Listing:
    """Stanford Cars as torchvision lays it out, its official halves together.

    The labels of the official test half came later, in a file of their own: without it there is
    the official train half alone.
    """
    _read_mat(root / "stanford_cars" / "devkit" / "cars_meta.mat", "class_names")
    parts = []
    for part, file in _cars(root).items():
        with naming(file):
            parts.append(by_mat(tv.StanfordCars, (part,), (), root))
    return halves(parts[0].classes, [item for part in parts for item in part.train])


def cars196_cropped(root: Path) -> Listing:
    """Its images cut to their bounding boxes: the first and the last pixel of each, from 1."""
    listing, boxes = cars196(root), {}
    for part, file in _cars(root).items():
        for row in np.atleast_1d(_read_mat(file, "annotations")):
            with naming(file):
                name = str(row["fname"])
                edges = (row[f"bbox_{edge}"] for edge in ("x1", "y1", "x2", "y2"))
                left, top, right, bottom = four(name, edges)
                box = checked(name, (left - 1, top - 1, right, bottom))
            boxes[root / "stanford_cars" / f"cars_{part}" / name] = box
    return listing._replace(boxes=boxes)


def _cars(root: Path) -> dict[str, Path]:
    files = {part: root / "stanford_cars" / file for part, file in CARS.items()}
    return {part: file for part, file in files.items() if part == "train" or file.is_file()}


def _read_mat(file: Path, name: str) -> Any:
    from scipy.io import loadmat  # slow to import: no other set waits for it
    from scipy.io.matlab import MatReadError

    with naming(file):
        try:
            return loadmat(file, squeeze_me=True)[name]
        except MatReadError as error:
            raise ValueError(str(error)) from error


# fmt: off
CLASS_DISJOINT = {
    "cub200": Downstream("CUB-200-2011", "accuracy", 200, 5_864, 5_924,
        cub200, "CUB_200_2011", CUB_PAGE),
    "cub200_cropped": Downstream("CUB-200-2011, cropped", "accuracy", 200, 5_864, 5_924,
        cub200_cropped, "CUB_200_2011", CUB_PAGE),
    "cars196": Downstream("Cars196", "accuracy", 196, 8_054, 8_131,
        cars196, "stanford_cars", CARS_PAGE),
    "cars196_cropped": Downstream("Cars196, cropped", "accuracy", 196, 8_054, 8_131,
        cars196_cropped, "stanford_cars", CARS_PAGE),
    "sop": Downstream("Stanford Online Products", "accuracy", 22_634, 59_551, 60_502,
        sop, "Stanford_Online_Products", "https://cvgl.stanford.edu/projects/lifted_struct/"),
    "inshop": Downstream("In-Shop", "accuracy", 7_982, 25_882, 26_830,  # 14,218 are queries
        inshop, INSHOP, "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"),
    "omniglot": Downstream("Omniglot", "accuracy", 1_623, 19_280, 13_180,
        omniglot, "omniglot-py", "https://github.com/brendenlake/omniglot"),
}
# fmt: on
