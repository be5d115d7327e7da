import hashlib
import json
import os
import pickle
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch.utils.data import DataLoader
from torchvision import datasets as tv

from sslkit.data import DOWNSTREAM, ArrayDataset, LabelledImages, load_splits
from sslkit.data.downstream import differs
from sslkit.data.layouts import VOC_CLASSES, caltech101

REAL = Path(os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit/data").expanduser()
FILES = [name for name in DOWNSTREAM if not name.startswith("cifar")]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def urlopen(request, *args, **kwargs):
        raise URLError("a downstream set asked for the network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.delenv("SSLKIT_DATA", raising=False)


def paint(path, label, split, shape=(12, 8)):
    """An image that shows its class (red) and split (green)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (40 * label + 20, 230 if split == "test" else 20, 90)
    Image.new("RGB", shape, colour).save(path, "JPEG", quality=95)


def seen(image):
    """What ``paint`` put into a decoded image."""
    red, green, _ = image.float().mean((1, 2)).tolist()
    return round((red - 20) / 40), "test" if green > 125 else "train"


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


# Each set as its authors store it, in miniature, written without torchvision. A writer returns the
# classes in their order and the labels of train and test.


def write_food101(root, patch):
    base, classes = root / "food-101", ["apple_pie", "baby_back_ribs", "waffles"]
    text(base / "meta" / "classes.txt", *classes)
    for split, n in (("train", 3), ("test", 1)):
        lists = {c: [f"{c}/{split}{i}" for i in range(n)] for c in reversed(classes)}
        (base / "meta" / f"{split}.json").write_text(json.dumps(lists))
        for label, name in enumerate(classes):
            for path in lists[name]:
                paint(base / "images" / f"{path}.jpg", label, split)
    return classes, [2, 2, 2, 1, 1, 1, 0, 0, 0], [2, 1, 0]


def write_birdsnap(root, patch):
    base = root / "birdsnap"
    birds = [(1, "Acadian Flycatcher"), (2, "Acorn Woodpecker"), (4, "Allen's Hummingbird")]
    dirs = [name.replace(" ", "_").replace("'", "") for _, name in birds]
    text(
        base / "species.txt",
        "id\tcommon\tscientific\tdir",
        *(f"{i}\t{name}\tAvis avis\t{d}" for (i, name), d in zip(birds, dirs, strict=True)),
    )
    rows, tests = [], []
    for label in (2, 0, 1, 0, 2, 2):
        path = f"{dirs[label]}/{len(rows)}.jpg"
        split = "test" if len(rows) in (1, 4) else "train"
        paint(base / "images" / path, label, split)
        rows.append(
            f"http://f.example/{path}\t{'0' * 32}\t{path}\t{birds[label][0]}\t1\t2\t3\t4\t\t"
        )
        tests += [path] if split == "test" else []
    text(base / "images.txt", "url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1\tbb_x2\tbb_y2\ta_x", *rows)
    text(base / "test_images.txt", "path", *tests)
    return [name for _, name in birds], [2, 1, 0, 2], [0, 2]


def write_sun397(root, patch):
    base, names = root / "SUN397", ["/a/abbey", "/c/church/indoor", "/c/church/outdoor"]
    for folder in (base, base / "Partitions"):
        text(folder / "ClassName.txt", *names)
    for number in ("01", "02"):  # the second has the two exchanged
        for split, file in zip(("train", "test"), ("Training", "Testing"), strict=True):
            paths = [f"{name}/sun_{split}{i}.jpg" for name in names for i in range(2)]
            other = {"train": "test", "test": "train"}[split]
            lines = paths if number == "01" else [p.replace(split, other) for p in paths]
            text(base / "Partitions" / f"{file}_{number}.txt", *lines)
            for i, path in enumerate(paths):
                paint(base / path[1:], i // 2, split)
    paint(base / "a/abbey/sun_in_no_list.jpg", 0, "train")
    return ["abbey", "church/indoor", "church/outdoor"], [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2]


def write_stanford_cars(root, patch):
    base, classes = root / "stanford_cars", ["Audi TT RS Coupe 2012", "AM General Hummer", "Volvo"]
    truth = {"train": [2, 0, 1, 0], "test": [1, 2]}
    files = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    (base / "devkit").mkdir(parents=True)
    named = np.array([[np.array([name], object) for name in classes]], object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": named.reshape(1, -1)})
    fields = [(f, object) for f in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    for split, labels in truth.items():
        rows = [(1, 2, 3, 4, np.uint8(c + 1), f"{i + 1:05d}.jpg") for i, c in enumerate(labels)]
        savemat(base / files[split], {"annotations": np.array([rows], fields)})
        for i, label in enumerate(labels):
            paint(base / f"cars_{split}" / f"{i + 1:05d}.jpg", label, split)
    return classes, *truth.values()


def write_fgvc_aircraft(root, patch):
    data, classes = root / "fgvc-aircraft-2013b" / "data", ["F/A-18", "A300B4", "Cessna 172"]
    text(data / "variants.txt", *classes)  # not in the order of the alphabet, some with a blank
    text(data / "families.txt", "other")
    truth = {"train": [1, 2], "val": [0], "test": [2, 0, 1]}
    lines = {}
    for n, (split, labels) in enumerate(truth.items()):
        lines[split] = [f"{n}{i:06d} {classes[label]}" for i, label in enumerate(labels)]
        for line, label in zip(lines[split], labels, strict=True):
            paint(data / "images" / f"{line.split()[0]}.jpg", label, split)
    lines["trainval"] = [*lines["val"], *lines["train"]]
    for split in lines:
        text(data / f"images_variant_{split}.txt", *lines[split])
    return classes, [0, 1, 2], truth["test"]


OBJECT = "<object><name>{}</name><difficult>{}</difficult><part><name>head</name></part></object>"
DOG, PERSON, TRAIN = (VOC_CLASSES.index(name) for name in ("dog", "person", "train"))


def write_voc2007(root, patch):
    base = root / "VOCdevkit" / "VOC2007"
    truth = {  # image -> (class, difficult)
        "trainval": {
            "000005": [("dog", 0), ("dog", 1), ("person", 1)],
            "000007": [("person", 1), ("person", 0)],
        },
        "test": {
            "000001": [("train", 1), ("train", 1), ("dog", 0)],
            "000002": [],
            "000003": [("person", 0)],
        },
    }
    marks = [[{DOG: 1, PERSON: -1}, {PERSON: 1}], [{TRAIN: -1, DOG: 1}, {}, {PERSON: 1}]]
    for split, images in truth.items():
        text(base / "ImageSets" / "Main" / f"{split}.txt", *images)
        for name, objects in images.items():
            inside = "".join(OBJECT.format(*thing) for thing in objects)
            xml = f"<annotation><filename>{name}.jpg</filename>{inside}</annotation>"
            text(base / "Annotations" / f"{name}.xml", xml)
            paint(base / "JPEGImages" / f"{name}.jpg", 0, split)
    rows = [[[m.get(c, 0) for c in range(20)] for m in part] for part in marks]
    return list(VOC_CLASSES), *rows


def write_dtd(root, patch):
    base, classes = root / "dtd" / "dtd", ["banded", "dotted", "zigzagged"]
    truth = {"train": [0, 1, 2], "val": [1, 2], "test": [0, 2, 1]}  # val has no class 0
    for split, labels in truth.items():
        names = [f"{classes[c]}/{classes[c]}_{split}{i}.jpg" for i, c in enumerate(labels)]
        text(base / "labels" / f"{split}1.txt", *names)
        text(base / "labels" / f"{split}2.txt", "no/image.jpg")
        for name, label in zip(names, labels, strict=True):
            paint(base / "images" / name, label, split)
    return classes, [0, 1, 2, 1, 2], [0, 2, 1]


def write_oxford_pets(root, patch):
    base, ids = root / "oxford-iiit-pet", ["Abyssinian", "american_bulldog", "Bengal"]
    truth = {"trainval": [0, 0, 1, 2], "test": [0, 1, 2]}
    for split, labels in truth.items():
        names = [f"{ids[label]}_{split}{i}" for i, label in enumerate(labels)]
        species = [2 if label == 1 else 1 for label in labels]
        lines = zip(names, labels, species, strict=True)
        text(base / "annotations" / f"{split}.txt", *(f"{n} {c + 1} {s} 1" for n, c, s in lines))
        for name, label in zip(names, labels, strict=True):
            paint(base / "images" / f"{name}.jpg", label, split)
    return ["Abyssinian", "American Bulldog", "Bengal"], *truth.values()


def write_caltech101(root, patch):
    base = root / "caltech101" / "101_ObjectCategories"
    classes = {"BACKGROUND_Google": 32, "Faces": 31, "accordion": 33, "yin_yang": 5}
    for label, (name, n) in enumerate(classes.items()):
        for i in range(n):
            paint(base / name / f"image_{i + 1:04d}.jpg", label, "train")
    text(base / "BACKGROUND_Google" / "tmp", "as in the authors' archive")
    sizes = [(30, 2), (30, 1), (30, 3), (2, 3)]
    parts = ([label for label, size in enumerate(sizes) for _ in range(size[k])] for k in (0, 1))
    return list(classes), *parts


def write_flowers102(root, patch):
    base = root / "flowers-102"
    labels = [3, 0, 1, 3, 1, 0, 2, 3]
    ids = {"trnid": [7, 2], "valid": [3, 8], "tstid": [1, 6, 5, 4]}
    for image, label in enumerate(labels, 1):
        split = "test" if image in ids["tstid"] else "train"
        paint(base / "jpg" / f"image_{image:05d}.jpg", label, split)
    savemat(base / "imagelabels.mat", {"labels": np.array([labels], np.uint8) + 1})
    savemat(base / "setid.mat", {k: np.array([v], np.uint16) for k, v in ids.items()})
    sums = dict(tv.Flowers102._file_dict)
    for key, file in (("label", "imagelabels.mat"), ("setid", "setid.mat")):
        sums[key] = file, hashlib.md5((base / file).read_bytes()).hexdigest()
    patch.setattr(tv.Flowers102, "_file_dict", sums)
    return tv.Flowers102.classes, [2, 0, 1, 3], [3, 0, 1, 3]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """name -> the truth of that set, which then lies under tmp_path."""
    return lambda name: globals()[f"write_{name}"](tmp_path, monkeypatch)


@pytest.mark.parametrize("name", FILES)
def test_layout(tmp_path, written, name):
    classes, *truth = written(name)
    train, test, title, metric, words, homepage = load_splits(name, root=str(tmp_path), size=6)
    row = DOWNSTREAM[name]
    assert (title, metric, homepage) == (row.title, row.metric, row.homepage)
    for split, data, labels in zip(("train", "test"), (train, test), truth, strict=True):
        assert isinstance(data, LabelledImages)
        assert data.labels.dtype == torch.int64
        assert data.labels.tolist() == labels
        assert len(data) == len(labels)
        assert data.classes == tuple(classes)
        for (image, label), wanted in zip((data[i] for i in range(len(data))), labels, strict=True):
            assert image.shape == (3, 6, 6)
            assert image.dtype == torch.uint8
            if name == "voc2007":
                assert label.tolist() == wanted
                assert seen(image)[1] == split
            else:
                assert type(label) is int
                assert label == wanted == seen(image)[0]
                assert name == "caltech101" or seen(image)[1] == split
    assert not set(train.paths) & set(test.paths)
    assert words


def test_voc_counts_difficult_objects_as_neither(tmp_path, written):
    written("voc2007")
    train, test, *_ = load_splits("voc2007", root=tmp_path)
    assert (train.labels.shape, test.labels.shape) == ((2, 20), (3, 20))
    assert train.labels[:, PERSON].tolist() == [-1, 1]
    assert test.labels[:, TRAIN].tolist() == [-1, 0, 0]
    assert train.labels.unique().tolist() == [-1, 0, 1]


@pytest.mark.parametrize("fine", [False, True])
def test_cifar(tmp_path, monkeypatch, fine):
    cls, name = (tv.CIFAR100, "cifar100") if fine else (tv.CIFAR10, "cifar10")
    key = "fine_label" if fine else "label"
    files = {cls.meta["filename"]: {f"{key}_names": [f"c{i}" for i in range(3)]}}
    for i, (file, _) in enumerate([*cls.train_list, *cls.test_list]):
        files[file] = {"data": np.full((3, 3072), i, np.uint8), f"{key}s": [2, 0, 1]}
    folder = tmp_path / cls.base_folder
    folder.mkdir()
    sums = {}
    for file, content in files.items():
        (folder / file).write_bytes(pickle.dumps(content))
        sums[file] = hashlib.md5((folder / file).read_bytes()).hexdigest()
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(cls, part, [[file, sums[file]] for file, _ in getattr(cls, part)])
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": sums[cls.meta["filename"]]})
    train, test, title, metric, words, homepage = load_splits(name, root=tmp_path)
    row = DOWNSTREAM[name]
    assert (title, metric, homepage) == (row.title, "accuracy", row.homepage)
    assert isinstance(train, ArrayDataset)
    assert test.images.shape == (3, 3, 32, 32)
    assert train.classes == test.classes == ("c0", "c1", "c2")
    batches = range(1 if fine else 5)
    assert train.labels.tolist() == [2, 0, 1] * len(batches)
    assert train.images[-1].unique().tolist() == [batches[-1]]
    assert test.images.unique().tolist() == [len(batches)]
    assert words == f"3 of {row.classes} classes, {len(batches) + 1} a class"


def test_workers(tmp_path, written):
    for name in ("dtd", "voc2007"):
        written(name)
        data = load_splits(name, root=tmp_path, size=8).train
        images, labels = next(iter(DataLoader(data, batch_size=len(data), num_workers=1)))
        assert images.shape == (len(data), 3, 8, 8)
        assert torch.equal(labels, data.labels)


def test_root_from_the_environment(tmp_path, written, monkeypatch):
    written("dtd")
    monkeypatch.setenv("SSLKIT_DATA", str(tmp_path))
    assert len(load_splits("dtd").test) == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_splits("dtd", root="~").test) == 3


# the draw of Caltech-101


def test_caltech_draw_is_fixed(tmp_path, written):
    written("caltech101")
    train, test, *_ = load_splits("caltech101", root=tmp_path)
    chosen = [p.name for p, c in zip(test.paths, test.labels, strict=True) if c == 2]
    assert chosen == ["image_0005.jpg", "image_0009.jpg", "image_0019.jpg"]
    paint(tmp_path / "caltech101/101_ObjectCategories/bass/image_0001.jpg", 0, "train")
    paint(tmp_path / "caltech101/101_ObjectCategories/ant/image_0001.jpg", 0, "train")
    paint(tmp_path / "caltech101/101_ObjectCategories/ant/image_0002.jpg", 0, "train")
    again = load_splits("caltech101", root=tmp_path).test
    assert again.classes == (*train.classes[:3], "ant", "yin_yang")  # one image is no class
    assert [p for p in again.paths if p.parent.name != "ant"] == test.paths
    other = caltech101(tmp_path, seed=1).test
    assert [path for path, _ in other] != again.paths


def test_caltech_knows_the_images_that_torchvision_knows(tmp_path, written):
    written("caltech101")
    train, test, *_ = load_splits("caltech101", root=tmp_path)
    theirs = tv.Caltech101(tmp_path)
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    names = {
        folder / theirs.categories[c] / f"image_{i:04d}.jpg"
        for c, i in zip(theirs.y, theirs.index, strict=True)
    }
    ours = {*train.paths, *test.paths}
    assert {p for p in ours if p.parent.name != "BACKGROUND_Google"} == names
    assert train.classes == ("BACKGROUND_Google", *theirs.categories)


# published sizes


def test_table_is_as_published():
    rows = {n: (r.classes, r.train, r.test, r.metric) for n, r in DOWNSTREAM.items()}
    assert rows == {
        "food101": (101, 75750, 25250, "accuracy"),
        "cifar10": (10, 50000, 10000, "accuracy"),
        "cifar100": (100, 50000, 10000, "accuracy"),
        "birdsnap": (500, 47386, 2443, "accuracy"),
        "sun397": (397, 19850, 19850, "accuracy"),
        "stanford_cars": (196, 8144, 8041, "accuracy"),
        "fgvc_aircraft": (100, 6667, 3333, "mean_per_class"),
        "voc2007": (20, 5011, 4952, "map11"),
        "dtd": (47, 3760, 1880, "accuracy"),
        "oxford_pets": (37, 3680, 3669, "mean_per_class"),
        "caltech101": (102, 3060, 6084, "mean_per_class"),
        "flowers102": (102, 2040, 6149, "mean_per_class"),
    }


def labels_of(row, train, test, classes=None):
    if row.metric == "map11":
        return torch.zeros(train, 20).long(), torch.zeros(test, 20).long()
    return tuple(torch.arange(n) % (classes or row.classes) for n in (train, test))


@pytest.mark.parametrize("row", DOWNSTREAM.values(), ids=list(DOWNSTREAM))
def test_published_sizes_do_not_differ(row):
    assert differs(row, *labels_of(row, row.train, row.test)) is None
    fewer = differs(row, *labels_of(row, row.train - 1, row.test))
    assert fewer == f"{row.train - 1:,} + {row.test:,} images"
    moved = differs(row, *labels_of(row, row.train - 1, row.test + 1))
    assert moved == f"{row.train - 1:,} + {row.test + 1:,} images"


@pytest.mark.parametrize(
    ("name", "counts", "words"),
    [
        ("caltech101", (8 * 102, 8 * 102), "16 a class"),
        ("dtd", (40 * 10, 20 * 10), "10 of 47 classes, 60 a class"),
        ("cifar10", (5000, 1000), "600 a class"),
        ("voc2007", (5011, 0), "5,011 + 0 images"),
    ],
)
def testdiffers(name, counts, words):
    row = DOWNSTREAM[name]
    labels = labels_of(row, *counts, classes=10 if name == "dtd" else None)
    assert differs(row, *labels) == words


# absent, incomplete, damaged


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_absent(tmp_path, name):
    with pytest.raises(FileNotFoundError) as error:
        load_splits(name, root=tmp_path)
    row, line = DOWNSTREAM[name], str(error.value)
    assert line.startswith(f"{name} is not at {tmp_path / row.folder}")
    assert f": get it from {row.homepage} and unpack it there" in line
    assert "\n" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_empty_folder(tmp_path, name):
    (tmp_path / DOWNSTREAM[name].folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=f"^{name} at .* is damaged or incomplete ") as error:
        load_splits(name, root=tmp_path)
    assert DOWNSTREAM[name].homepage in str(error.value)
    assert "\n" not in str(error.value)
    assert "download=True" not in str(error.value)


LISTED = [name for name in FILES if name not in ("caltech101", "birdsnap")]


@pytest.mark.parametrize("name", LISTED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_listed_image_that_is_missing(tmp_path, written, name, split):
    written(name)
    data = getattr(load_splits(name, root=tmp_path), split)
    data.paths[1].unlink()
    line = f"1 of the {len(data)} images to {split} with are missing, the first is '"
    with pytest.raises(ValueError, match=f"{name} at .*incomplete .{line}.*{data.paths[1].name}"):
        load_splits(name, root=tmp_path)


def test_birdsnap_without_what_flickr_lost(tmp_path, written):
    written("birdsnap")
    whole = load_splits("birdsnap", root=tmp_path)
    whole.train.paths[0].unlink()
    splits = load_splits("birdsnap", root=tmp_path)
    assert splits.train.paths == whole.train.paths[1:]
    assert splits.train.labels.tolist() == [1, 0, 2]
    assert splits.test.paths == whole.test.paths
    assert splits.differs == "3 of 500 classes, 3 + 2 images"
    for path in splits.train.paths:
        path.unlink()
    with pytest.raises(ValueError, match="no image to train with"):
        load_splits("birdsnap", root=tmp_path)


def test_birdsnap_where_the_authors_script_leaves_it(tmp_path, written):
    _, train, _ = written("birdsnap")
    base = tmp_path / "birdsnap"
    (base / "download").mkdir()
    (base / "images").rename(base / "download" / "images")
    assert load_splits("birdsnap", root=tmp_path).train.labels.tolist() == train


def harm(path, change):
    path.write_bytes(change(path.read_bytes()))


DAMAGE = [
    ("food101", "food-101/meta/test.json", lambda b: b[:-5]),
    ("food101", "food-101/meta/train.json", lambda b: b"{}"),
    ("birdsnap", "birdsnap/images.txt", lambda b: b""),
    ("birdsnap", "birdsnap/images.txt", lambda b: b.replace(b"\tpath", b"\tway")),
    ("birdsnap", "birdsnap/species.txt", lambda b: b.replace(b"4\tAllen", b"5\tAllen")),
    ("sun397", "SUN397/Partitions/Testing_01.txt", None),
    ("sun397", "SUN397/Partitions/ClassName.txt", lambda b: b.replace(b"/a/abbey", b"/a/alley")),
    ("stanford_cars", "stanford_cars/devkit/cars_train_annos.mat", lambda b: b[:500]),
    ("stanford_cars", "stanford_cars/devkit/cars_train_annos.mat", lambda b: b""),
    ("stanford_cars", "stanford_cars/cars_test_annos_withlabels.mat", None),
    ("flowers102", "flowers-102/setid.mat", lambda b: b[:-1]),
    ("fgvc_aircraft", "fgvc-aircraft-2013b/data/variants.txt", lambda b: b.replace(b"172", b"1")),
    ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/test.txt", None),
    ("voc2007", "VOCdevkit/VOC2007/Annotations/000001.xml", None),
    ("voc2007", "VOCdevkit/VOC2007/Annotations/000001.xml", lambda b: b[:-9]),
    ("voc2007", "VOCdevkit/VOC2007/Annotations/000005.xml", lambda b: b.replace(b"dog", b"cow ?")),
    ("dtd", "dtd/dtd/labels/val1.txt", lambda b: b + b"\n"),
    ("oxford_pets", "oxford-iiit-pet/annotations/test.txt", lambda b: b.replace(b" 1\n", b"\n")),
]


@pytest.mark.parametrize(("name", "file", "change"), DAMAGE)
def test_damaged_list(tmp_path, written, name, file, change):
    written(name)
    if change is None:
        (tmp_path / file).unlink()
    else:
        harm(tmp_path / file, change)
    with pytest.raises(ValueError, match=f"{name} at .* is damaged or incomplete .+") as error:
        load_splits(name, root=tmp_path)
    assert "\n" not in str(error.value)
    if file.endswith(".xml"):
        assert Path(file).name in str(error.value)


@pytest.mark.parametrize("name", ["food101", "dtd", "sun397", "voc2007", "oxford_pets"])
def test_image_in_both_splits(tmp_path, written, name):
    written(name)
    for file in tmp_path.rglob("*"):  # the test list becomes a copy of the train list
        other = {"test.json": "train.json", "test1.txt": "train1.txt", "test.txt": "trainval.txt"}
        other["Testing_01.txt"] = "Training_01.txt"
        if file.name in other:
            file.write_bytes((file.parent / other[file.name]).read_bytes())
    with pytest.raises(ValueError, match=r"is in train and in test, one of [2-9]"):
        load_splits(name, root=tmp_path)


ESCAPES = [
    ("food101", "food-101/meta/train.json", "waffles/train0", "../../secret"),
    ("birdsnap", "birdsnap/images.txt", "\tAcadian_Flycatcher/1.jpg", "\t../../secret.jpg"),
    ("birdsnap", "birdsnap/images.txt", "\tAcadian_Flycatcher/1.jpg", "\t{root}/secret.jpg"),
    ("sun397", "SUN397/Partitions/Training_01.txt", "/a/abbey/sun_train0.jpg", "/../secret.jpg"),
    (
        "sun397",
        "SUN397/Partitions/Training_01.txt",
        "/a/abbey/sun_train0.jpg",
        "/{root}/secret.jpg",
    ),
    (
        "fgvc_aircraft",
        "fgvc-aircraft-2013b/data/images_variant_test.txt",
        "2000000 ",
        "{root}/secret ",
    ),
    (
        "fgvc_aircraft",
        "fgvc-aircraft-2013b/data/images_variant_test.txt",
        "2000000 ",
        "../../../secret ",
    ),
    ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/test.txt", "000001", "../../../secret"),
    ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt", "000005", "{root}/secret"),
    ("oxford_pets", "oxford-iiit-pet/annotations/test.txt", "Abyssinian_test0", "{root}/secret"),
    ("oxford_pets", "oxford-iiit-pet/annotations/trainval.txt", "Bengal_trainval3", "../../secret"),
    ("dtd", "dtd/dtd/labels/test1.txt", "banded/banded_test0.jpg", "../secret.jpg"),
]


@pytest.mark.parametrize(("name", "file", "old", "new"), ESCAPES)
def test_path_that_leads_outside(tmp_path, written, name, file, old, new):
    """Refused before it is read, though what it leads to is a good image."""
    written(name)
    for folder in (tmp_path, *(p for p in tmp_path.rglob("*") if p.is_dir())):
        paint(folder / "secret.jpg", 0, "train")
    lines = (tmp_path / file).read_text()
    assert old in lines
    (tmp_path / file).write_text(lines.replace(old, new.format(root=tmp_path)))
    if name == "sun397":  # their paths also name the class
        names = tmp_path / "SUN397" / "Partitions" / "ClassName.txt"
        names.write_text(names.read_text() + f"/..\n/{tmp_path}\n")
    with pytest.raises(ValueError, match=r"its lists name '.*secret.*', outside '"):
        load_splits(name, root=tmp_path)


@pytest.mark.parametrize("path", ["../../secret.jpg", "{root}/secret.jpg"])
def test_mat_that_leads_outside(tmp_path, written, path):
    written("stanford_cars")
    paint(tmp_path / "secret.jpg", 0, "train")
    rows = [(0, 0, 1, 1, 1, path.format(root=tmp_path)), (0, 0, 1, 1, 2, "00002.jpg")]
    fields = [(f, object) for f in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    file = tmp_path / "stanford_cars" / "cars_test_annos_withlabels.mat"
    savemat(file, {"annotations": np.array([rows], fields)})
    with pytest.raises(ValueError, match=r"its lists name '.*secret.jpg', outside '"):
        load_splits("stanford_cars", root=tmp_path)


@pytest.mark.parametrize("name", ["dtd", "oxford_pets"])
def test_split_that_lacks_a_class(tmp_path, written, name):
    """torchvision numbers the classes of each split by themselves: the names must agree."""
    written(name)
    for file in [*tmp_path.rglob("test1.txt"), *tmp_path.rglob("test.txt")]:
        lines = file.read_text().splitlines()
        file.write_text("".join(f"{x}\n" for x in lines if x[:6] not in ("banded", "Abyssi")))
    train, test, *_ = load_splits(name, root=tmp_path, size=4)
    assert sorted(train.classes) == sorted(written_classes(name))
    assert train.classes == test.classes
    for data in (train, test):
        for i in range(len(data)):
            image, label = data[i]
            assert written_classes(name)[seen(image)[0]] == data.classes[label]


def written_classes(name):
    if name == "dtd":
        return ["banded", "dotted", "zigzagged"]
    return ["Abyssinian", "American Bulldog", "Bengal"]


# the real ones, which are subsets but for CIFAR-10


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sizes", "differs", "first", "last"),
    [
        ("cifar10", (50000, 10000), None, "airplane", "truck"),
        ("caltech101", (808, 808), "101 of 102 classes, 16 a class", "Faces", "yin_yang"),
        ("dtd", (400, 200), "10 of 47 classes, 60 a class", "banded", "crystalline"),
        ("oxford_pets", (222, 148), "10 a class", "Abyssinian", "Yorkshire Terrier"),
        (
            *("stanford_cars", (1372, 588), "10 a class"),
            *("AM General Hummer SUV 2000", "smart fortwo Convertible 2012"),
        ),
    ],
)
def test_real(name, sizes, differs, first, last):
    train, test, *_, words, _ = load_splits(name, root=REAL)
    assert (len(train), len(test)) == sizes
    assert words == differs
    assert (train.classes[0], train.classes[-1]) == (first, last)
    for data in (train, test):
        assert data.labels.unique().tolist() == list(range(len(data.classes)))
        assert data[len(data) - 1][1] == data.labels[-1]
        if name in ("caltech101", "dtd", "oxford_pets"):  # whose paths say the class
            for path, label in zip(data.paths, data.labels.tolist(), strict=True):
                word = path.parent.name if name != "oxford_pets" else path.stem.rsplit("_", 1)[0]
                assert (
                    word.replace("_", " ").lower() == data.classes[label].replace("_", " ").lower()
                )
