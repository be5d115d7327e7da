import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from sslkit.data import load_splits
from sslkit.data.class_disjoint import CLASS_DISJOINT
from sslkit.data.downstream import differs

REAL = Path(os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit/data").expanduser()


def paint(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (40 * label + 20, 20, 90)).save(path, "JPEG", quality=95)


def shown(data):
    return [round((image[0].float().mean().item() - 20) / 40) for image, _ in data]


def write_cub200(root):
    """As the authors' archive: images sorted by class, and an official split, not used."""
    base, names = root / "CUB_200_2011", ["Laysan_Albatross", "Ani", "Brewer_Blackbird", "Cardinal"]
    folders = [f"{i:03d}.{name}" for i, name in enumerate(names, 1)]
    labels = [0, 0, 1, 2, 2, 2, 3]
    paths = [f"{folders[c]}/{names[c]}_{i:04d}_{900 + i}.jpg" for i, c in enumerate(labels)]
    for path, label in zip(paths, labels, strict=True):
        paint(base / "images" / path, label)
    tables = {
        "classes.txt": folders,
        "images.txt": paths,
        "image_class_labels.txt": [label + 1 for label in labels],
        "train_test_split.txt": [i % 2 for i in range(len(labels))],
    }
    for file, values in tables.items():
        lines = (f"{i} {value}\n" for i, value in enumerate(values, 1))
        (base / file).write_text("".join(lines))
    return names, [0, 0, 1], [2, 2, 2, 3]


def write_cars196(root):
    base, classes = root / "stanford_cars", ["AM General Hummer", "Acura RL", "Audi TT", "Volvo"]
    truth = {"train": [2, 0, 3, 1], "test": [1, 2, 0, 3]}
    files = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    (base / "devkit").mkdir(parents=True)
    named = np.array([[np.array([name], object) for name in classes]], object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": named.reshape(1, -1)})
    fields = [(f, object) for f in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    for split, labels in truth.items():
        rows = [(1, 2, 3, 4, np.uint8(c + 1), f"{i + 1:05d}.jpg") for i, c in enumerate(labels)]
        savemat(base / files[split], {"annotations": np.array([rows], fields)})
        for i, label in enumerate(labels):
            paint(base / f"cars_{split}" / f"{i + 1:05d}.jpg", label)
    return classes, [0, 1, 1, 0], [2, 3, 2, 3]


WRITERS = {"cub200": write_cub200, "cars196": write_cars196}


@pytest.mark.parametrize("name", WRITERS)
def test_layout(tmp_path, name):
    classes, *truth = WRITERS[name](tmp_path)
    found = load_splits(name, root=tmp_path, size=6)
    row = CLASS_DISJOINT[name]
    assert (found.title, found.metric) == (row.title, "accuracy")
    assert found.homepage == row.homepage
    assert found.differs.startswith(f"4 of {row.classes} classes, ")
    for data, labels in zip(found[:2], truth, strict=True):
        assert data.labels.tolist() == labels == shown(data) == [label for _, label in data]
        assert data.classes == tuple(classes)


def test_cars_without_the_labels_of_the_official_test_half(tmp_path):
    write_cars196(tmp_path)
    (tmp_path / "stanford_cars" / "cars_test_annos_withlabels.mat").unlink()
    train, test, *_ = load_splits("cars196", root=tmp_path, size=6)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [2, 3])
    assert shown(test) == [2, 3]


def test_published_sizes():
    """11,788 and 16,185 images: both official halves."""
    rows = {n: (r.classes, r.train, r.test) for n, r in CLASS_DISJOINT.items()}
    assert rows == {"cub200": (200, 5864, 5924), "cars196": (196, 8054, 8131)}
    for row in CLASS_DISJOINT.values():
        half = row.classes // 2
        train, test = torch.arange(row.train) % half, half + torch.arange(row.test) % half
        assert differs(row, train, test) is None
        assert differs(row, train[1:], test) == f"{row.train - 1:,} + {row.test:,} images"


@pytest.mark.parametrize("name", WRITERS)
def test_absent(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"^{name} is not at .*: get it from https://"):
        load_splits(name, root=tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "why"),
    [
        ("classes.txt", None, "No such file"),
        ("image_class_labels.txt", None, "No such file"),
        ("image_class_labels.txt", lambda t: t.replace("7 4\n", ""), "unknown '7'"),
        ("image_class_labels.txt", lambda t: t.replace("7 4\n", "7 5\n"), "unknown '5'"),
        ("images.txt", lambda t: t.replace("7 004", "7 ../004"), "outside"),
        ("images.txt", lambda t: t.replace("_0006_", "_0009_"), "1 of the 4 images to test with"),
        ("images.txt", lambda t: "one\n", "dictionary update"),
        ("images.txt", lambda t: "", "no image to train with"),
    ],
)
def test_damaged_cub200(tmp_path, file, change, why):
    write_cub200(tmp_path)
    path = tmp_path / "CUB_200_2011" / file
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=f"cub200 at .* is damaged or incomplete .*{why}") as error:
        load_splits("cub200", root=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.data
def test_real_cars196():
    found = load_splits("cars196", root=REAL, size=32)
    assert found.train.labels.unique().tolist() == list(range(98))
    assert found.test.labels.unique().tolist() == list(range(98, 196))
    assert (len(found.train), len(found.test), found.differs) == (980, 980, "10 a class")
    assert found.test.classes[98] != found.test.classes[97]
    assert found.test[0][0].shape == (3, 32, 32)
