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


def write_sop(root):
    """Lists of four columns; classes numbered from 1 through both, no folder of their own."""
    base, head = root / "Stanford_Online_Products", "image_id class_id super_class_id path\n"
    kinds, number = ("bicycle_final", "sofa_final"), 0
    for file, classes in (("Ebay_train.txt", (1, 1, 2)), ("Ebay_test.txt", (3, 4, 4, 3))):
        lines = []
        for i, c in enumerate(classes):
            number += 1
            path = f"{kinds[c % 2]}/11108512{c}_{i}.JPG"
            paint(base / path, c - 1)
            lines.append(f"{number} {c} {c % 2 + 1} {path}\n")
        (base / file).write_text(head + "".join(lines))
    return list("1234"), [0, 0, 1], [2, 3, 3, 2]


def write_inshop(root, images="Img"):
    """One list for all, columns filled up by spaces; queries and gallery in any order."""
    base, lines = root / "In-shop_Clothes_Retrieval_Benchmark", []
    items = [f"id_0000000{i}" for i in (7, 2, 4, 3)]
    listed = ["1 gallery", "3 train", "0 query", "1 query", "0 gallery", "2 train", "1 gallery"]
    listed += ["3 train", "0 gallery"]
    label = {3: 0, 2: 1, 0: 2, 1: 3}
    for i, entry in enumerate(listed):
        item, status = entry.split()
        path = f"img/WOMEN/Dresses/{items[int(item)]}/{i:02d}_1_front.jpg"
        paint(base / images / path, label[int(item)])
        lines.append(f"{path:<50}{items[int(item)]:<14}{status}\n")
    (base / "Eval").mkdir()
    head = f"{len(lines)}\nimage_name item_id evaluation_status\n"
    (base / "Eval" / "list_eval_partition.txt").write_text(head + "".join(lines))
    return [items[i] for i in label], [0, 1, 0], [2, 3, 3, 2, 3, 2]


WRITERS = {
    "cub200": write_cub200,
    "cars196": write_cars196,
    "sop": write_sop,
    "inshop": write_inshop,
}


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


@pytest.mark.parametrize("images", ["Img", ""])
def test_inshop_tells_queries_from_the_gallery(tmp_path, images):
    write_inshop(tmp_path, images)
    train, test, *_ = load_splits("inshop", root=tmp_path, size=6)
    assert train.queries is None
    assert test.queries.tolist() == [True, True, False, False, False, False]
    assert test.head(3).queries.tolist() == [True, True, False]
    assert shown(test) == test.labels.tolist()


PUBLISHED = {  # classes and images to train with, and to test with
    "cub200": ((100, 5_864), (100, 5_924)),  # 11,788 images: both official halves
    "cars196": ((98, 8_054), (98, 8_131)),  # 16,185 images: both official halves
    "sop": ((11_318, 59_551), (11_316, 60_502)),
    "inshop": ((3_997, 25_882), (3_985, 14_218 + 12_612)),
}


def test_published_sizes():
    assert list(CLASS_DISJOINT) == list(PUBLISHED)
    for row, ((classes, n), (others, m)) in zip(
        CLASS_DISJOINT.values(), PUBLISHED.values(), strict=True
    ):
        assert (row.classes, row.train, row.test) == (classes + others, n, m)
        train, test = torch.arange(n) % classes, classes + torch.arange(m) % others
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


def check_damage(tmp_path, name, file, change, why):
    WRITERS[name](tmp_path)
    path = tmp_path / CLASS_DISJOINT[name].folder / file
    if change is None:
        path.unlink()
    else:
        text = path.read_text()
        assert change(text) != text
        path.write_text(change(text))
    with pytest.raises(ValueError, match=why) as error:
        load_splits(name, root=tmp_path)
    assert str(error.value).startswith(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "change", "why"),
    [
        ("Ebay_test.txt", None, r"damaged or incomplete .*No such file"),
        ("Ebay_test.txt", lambda t: "", "Ebay_test.txt has no line 'image_id class_id super_"),
        ("Ebay_train.txt", lambda t: t.partition("\n")[2], "Ebay_train.txt has no line 'image_id"),
        ("Ebay_train.txt", lambda t: t + "9 2 so", "has the row '9 2 so', which is not 'image_id"),
        ("Ebay_train.txt", lambda t: t.partition("\n")[0], "no image to train with"),
        ("Ebay_test.txt", lambda t: t.replace(" sofa", " ../sofa"), "'.*sofa.*', outside '"),
        ("Ebay_test.txt", lambda t: t.replace(" sofa", " /sofa"), "'/sofa.*', outside '"),
        ("Ebay_test.txt", lambda t: t.replace("_1.JPG", "_7.JPG"), "1 of the 4 images to test"),
        ("Ebay_test.txt", lambda t: t.replace(" 3 ", " 2 "), "sop: class '2' is in train and in t"),
        ("Ebay_test.txt", lambda t: t.replace(" 3 ", " 4 "), "4 images to test with show one cl"),
        ("Ebay_train.txt", lambda t: t.replace(" 2 1 ", " 1 1 "), "3 images to train with show"),
    ],
)
def test_damaged_sop(tmp_path, file, change, why):
    check_damage(tmp_path, "sop", file, change, why)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (None, r"damaged or incomplete .*No such file"),
        (lambda t: "", "has no line 'image_name item_id evaluation_status' above its rows"),
        (lambda t: t.partition("\n")[2], "has no line 'image_name item_id evaluation_status'"),
        (lambda t: t.rpartition("img")[0], "list_eval_partition.txt has 8 rows, and says '9'"),
        (lambda t: t.replace("query", "quarry"), r"status 'quarry', none of \('train', 'query', '"),
        (lambda t: t.replace("query", ""), "has the row 'img/.*', which is not 'image_name item"),
        (lambda t: t.replace("query", "gallery"), "has no image of the status 'query'"),
        (lambda t: t.replace("gallery", "query"), "has no image of the status 'gallery'"),
        (lambda t: t.replace("img/WOMEN", "../../WOMEN"), "outside '"),
        (lambda t: t.replace("00_1", "09_1"), "1 of the 6 images to test with are missing"),
        (lambda t: t.replace("/04_1", "/02_1"), "02_1_front.jpg' is a query and in the gallery"),
        (lambda t: t.replace("7   query", "3   query"), "class 'id_00000003' is in train and"),
    ],
)
def test_damaged_inshop(tmp_path, change, why):
    check_damage(tmp_path, "inshop", "Eval/list_eval_partition.txt", change, why)


@pytest.mark.data
def test_real_cars196():
    found = load_splits("cars196", root=REAL, size=32)
    assert found.train.labels.unique().tolist() == list(range(98))
    assert found.test.labels.unique().tolist() == list(range(98, 196))
    assert (len(found.train), len(found.test), found.differs) == (980, 980, "10 a class")
    assert found.test.classes[98] != found.test.classes[97]
    assert found.test[0][0].shape == (3, 32, 32)
