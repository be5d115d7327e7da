import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch.utils.data import DataLoader
from torchvision import datasets as tv

from sslkit.data import ImageError, load_splits
from sslkit.data.torchvision_sets import usual_classes

REAL = Path(os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit/data").expanduser()


def picture(label, split, shape=(12, 8)):
    """An image that shows its class (red) and split (green)."""
    return Image.new("RGB", shape, (20 * label + 20, 230 if split == "test" else 20, 90))


def seen(image):
    """What ``picture`` put into a decoded image."""
    red, green, _ = image.float().mean((1, 2)).tolist()
    return round((red - 20) / 20), "test" if green > 125 else "train"


def save(path, label, split):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(label, split).save(path)


# Some classes as torchvision lays them out, each with labels that it keeps in another place. A
# writer returns the names of the classes and the labels of train and test.


def write_gtsrb(root, patch):
    """Labels in ``_samples``, no names, no loader."""
    base, truth = root / "gtsrb", {"train": [0, 0, 1, 2], "test": [2, 0, 1]}
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for i, label in enumerate(truth["train"]):
        save(base / f"GTSRB/Training/{label:05d}/00000_{i:05d}.ppm", label, "train")
    for i, label in enumerate(truth["test"]):
        save(base / f"GTSRB/Final_Test/Images/{i:05d}.ppm", label, "test")
        rows.append(f"{i:05d}.ppm;12;8;1;1;9;7;{label}")
    (base / "GT-final_test.csv").write_text("\n".join(rows))
    return ["0", "1", "2"], *truth.values()


def write_svhn(root, patch):
    """Labels in ``labels``, no names; a 0 is stored as 10."""
    truth, sums = {"train": [3, 0, 1], "test": [1, 3]}, dict(tv.SVHN.split_list)
    for split, labels in truth.items():
        images = [np.asarray(picture(label, split, (32, 32))) for label in labels]
        file = root / f"{split}_32x32.mat"
        y = np.array([[label or 10] for label in labels], np.uint8)
        savemat(file, {"X": np.stack(images, 3), "y": y})
        sums[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    patch.setattr(tv.SVHN, "split_list", sums)
    return ["0", "1", "3"], *truth.values()


def write_mnist(root, patch):
    """Labels in ``targets``, ``train=``; grey, so that only red can be seen."""
    truth = {"train": [1, 0, 7], "test": [7, 1]}
    (root / "MNIST" / "raw").mkdir(parents=True)
    for labels, prefix in zip(truth.values(), ("train", "t10k"), strict=True):
        images = b"".join(bytes([20 * label + 20] * 784) for label in labels)
        head = struct.pack(">4i", 0x803, len(labels), 28, 28)
        (root / f"MNIST/raw/{prefix}-images-idx3-ubyte").write_bytes(head + images)
        data = struct.pack(">2i", 0x801, len(labels)) + bytes(labels)
        (root / f"MNIST/raw/{prefix}-labels-idx1-ubyte").write_bytes(data)
    return tv.MNIST.classes, *truth.values()


def write_dtd(root, patch):
    """A loader; each split numbers the classes that it holds."""
    truth = {"train": ["banded", "dotted", "woven"], "test": ["woven", "dotted"]}
    number, base = {"banded": 0, "dotted": 1, "woven": 2}, root / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for split, names in truth.items():
        paths = [f"{name}/{split}.png" for name in names]
        (base / "labels" / f"{split}1.txt").write_text("\n".join(paths))
        for path, name in zip(paths, names, strict=True):
            save(base / "images" / path, number[name], split)
    return list(number), [0, 1, 2], [2, 1]


def write_imagenette(root, patch):
    """A loader; several words a class; no test split."""
    wnids = sorted(tv.Imagenette._WNID_TO_CLASS)
    for label, wnid in enumerate(wnids):
        for split, name in (("train", "train"), ("val", "test")):
            save(root / f"imagenette2/{split}/{wnid}/{wnid}_{label}.JPEG", label, name)
    names = [", ".join(tv.Imagenette._WNID_TO_CLASS[wnid]) for wnid in wnids]
    return names, list(range(10)), list(range(10))


def write_oxford_pets(root, patch):
    """No loader, ``trainval`` in the place of ``train``, labels in ``_labels``."""
    base, ids = root / "oxford-iiit-pet", ["Abyssinian", "american_bulldog", "Bengal"]
    truth = {"trainval": [0, 0, 1, 2], "test": [0, 1, 2]}
    (base / "annotations").mkdir(parents=True)
    for split, labels in truth.items():
        names = [f"{ids[label]}_{split}{i}" for i, label in enumerate(labels)]
        lines = [f"{name} {c + 1} 1 1\n" for name, c in zip(names, labels, strict=True)]
        (base / "annotations" / f"{split}.txt").write_text("".join(lines))
        for name, label in zip(names, labels, strict=True):
            save(base / "images" / f"{name}.jpg", label, split)
    return ["Abyssinian", "American Bulldog", "Bengal"], *truth.values()


WRITERS = {
    "GTSRB": write_gtsrb,
    "SVHN": write_svhn,
    "MNIST": write_mnist,
    "DTD": write_dtd,
    "Imagenette": write_imagenette,
    "OxfordIIITPet": write_oxford_pets,
}


@pytest.mark.parametrize("name", WRITERS)
def test_layout(tmp_path, monkeypatch, name):
    classes, *truth = WRITERS[name](tmp_path, monkeypatch)
    found = load_splits(f"torchvision:{name}", root=tmp_path, size=6)
    assert (found.title, found.metric) == (name, "accuracy")
    assert found.differs == ("scored on its val split" if name == "Imagenette" else None)
    assert found.homepage.endswith(f"torchvision.datasets.{name}.html")
    for split, data, labels in zip(("train", "test"), found[:2], truth, strict=True):
        names = [classes[x] if len(classes) > max(labels) else str(x) for x in labels]
        assert data.classes == tuple(classes)
        assert data.labels.dtype == torch.int64
        assert [data.classes[label] for label in data.labels] == names
        assert [label for _, label in data] == data.labels.tolist()
        for (image, _), label in zip(data, labels, strict=True):
            assert (image.shape, image.dtype) == ((3, 6, 6), torch.uint8)
            assert seen(image)[0] == label
            assert name == "MNIST" or seen(image)[1] == split
        batch, rows = next(iter(DataLoader(data, len(data), num_workers=1)))
        assert torch.equal(rows, data.labels)
        assert torch.equal(batch[-1], data[-1][0])


def test_classes_with_a_loader_give_paths(tmp_path, monkeypatch):
    write_dtd(tmp_path, monkeypatch)
    write_svhn(tmp_path, monkeypatch)
    test = load_splits("torchvision:DTD", root=tmp_path).test
    assert [path.parent.name for path in test.paths] == ["woven", "dotted"]
    assert load_splits("torchvision:SVHN", root=tmp_path).test.paths is None


@pytest.mark.parametrize("name", ["GTSRB", "DTD", "OxfordIIITPet", "SVHN"])
def test_no_image_is_decoded_to_find_the_labels(tmp_path, monkeypatch, name):
    WRITERS[name](tmp_path, monkeypatch)
    opened = []
    decode = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or decode(*a, **k))
    train, test, *_ = load_splits(f"torchvision:{name}", root=tmp_path)
    assert len(opened) <= 4  # the first and the last of each split
    assert train[0][0].shape == (3, 224, 224)
    assert len(test)


# A class that is like torchvision's


class Fake:
    """Pairs by split; class attributes say what else it has."""

    pairs = {"train": [(0, 0), (1, 1)], "test": [(1, 1), (0, 0)]}  # noqa: RUF012

    def __init__(self, root, split="train", transform=None):
        if split not in self.pairs:
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are ...")
        self.items = self.pairs[split]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return picture(self.items[i][0], "train"), self.items[i][1]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Reads a ``Fake`` that has some things more."""

    def read(**things):
        cls = type("Fake", (Fake,), things | {"__module__": "torchvision.datasets.fake"})
        monkeypatch.setattr(tv, "Fake", cls, raising=False)
        monkeypatch.setattr(tv, "__all__", (*tv.__all__, "Fake"))
        return load_splits("torchvision:Fake", root=tmp_path, size=4)

    return read


def pairs(train, test=((1, 1), (0, 0)), **others):
    return {"train": list(train), "test": list(test), **others}


def test_labels_from_one_pass(fake):
    found = fake(pairs=pairs([(2, np.int64(2)), (4, torch.tensor(4))], [(4, 4), (2, 2)]))
    assert found.train.classes == ("2", "4")
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([0, 1], [1, 0])
    assert seen(found.test[0][0])[0] == 4


@pytest.mark.parametrize(
    "kept",
    [
        {"targets": property(lambda self: [1 - label for _, label in self.items])},
        {"targets": property(lambda self: torch.zeros(len(self.items), 8))},
        {"targets": property(lambda self: [label for _, label in self.items][:1])},
        {"labels": property(lambda self: ["a"] * len(self.items))},
        {"_samples": property(lambda self: [("path", "a", label) for _, label in self.items])},
        {"targets": []},
        {"targets": None},
    ],
)
def test_lists_that_do_not_agree_with_the_items_are_not_used(fake, kept):
    found = fake(**kept)
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([0, 1], [1, 0])


def test_the_first_split_that_there_is(fake):
    only = [(1, 1), (0, 0)]
    found = fake(pairs={"train": only, "trainval": only * 2, "val": only, "valid": only * 3})
    assert (len(found.train), len(found.test)) == (4, 2)
    assert found.differs == "scored on its val split"
    assert fake(pairs={"train": only, "valid": only}).differs == "scored on its valid split"


def test_classes_of_the_same_name(fake):
    """ImageNet has two kinds of crane."""
    found = fake(classes=[("crane",), ("crane",)])
    assert found.train.classes == ("crane", "crane")
    assert found.test.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("things", "message"),
    [
        ({"pairs": {"train": [(0, 0)]}}, r"cannot be read: Unknown value 'valid' for argument sp"),
        ({"pairs": {"test": [(0, 0)]}}, r"cannot be read: Unknown value 'train' for argument sp"),
        ({"pairs": pairs([])}, "cannot be used: it has no images"),
        (
            {"pairs": pairs([(0, None), (1, None)])},
            "its images have no class numbers for labels, the first is None",
        ),
        ({"pairs": pairs([(0, {"boxes": []})] * 2)}, r"no class numbers .* the first is \{'boxes"),
        ({"classes": ["a"]}, "a label is outside its 1 classes"),
        ({"pairs": pairs([(0, 0), (1, -1)]), "classes": ["a", "b"]}, "a label is outside its 2"),
        ({"pairs": pairs([(0, 0), (0, 0)])}, "its 2 images to train with show one class, '0'"),
    ],
)
def test_set_that_will_not_do(fake, things, message):
    with pytest.raises(ValueError, match=f"^torchvision:Fake.*{message}") as error:
        fake(**things)
    assert "\n" not in str(error.value)


def test_damaged(tmp_path, monkeypatch):
    write_gtsrb(tmp_path, monkeypatch)
    path = tmp_path / "gtsrb/GTSRB/Training/00000/00000_00001.ppm"
    path.write_bytes(b"P6")
    train = load_splits("torchvision:GTSRB", root=tmp_path).train
    with pytest.raises(ImageError, match=r"^cannot read image 1 of torchvision:GTSRB: Reached EOF"):
        train[1]
    csv = tmp_path / "gtsrb" / "GT-final_test.csv"
    csv.write_text(csv.read_text().replace("ClassId", "Class"))
    with pytest.raises(ValueError, match=r"^torchvision:GTSRB under .* be read: unknown 'ClassId'"):
        load_splits("torchvision:GTSRB", root=tmp_path)


@pytest.mark.parametrize("name", ["GTSRB", "SVHN", "MNIST", "DTD", "USPS", "ImageNet", "FER2013"])
def test_absent(tmp_path, name):
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=f"^torchvision:{name} is not under") as error:
            load_splits(f"torchvision:{name}", root=root)
        line = str(error.value)
        assert str(root) in line
        assert f"torchvision.datasets.{name}.html" in line
        assert "SSLKIT_DATA" in line
        assert "\n" not in line
        assert "download=True" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Nope", "$"), ("GTRSB", r"; did you mean 'GTSRB'\?$"), ("SUN397", ""), ("datasets", "")],
)
def test_wrong_name(tmp_path, name, hint):
    line = f"unknown class of torchvision.datasets '{name}': choose from .*, SVHN, .*{hint}"
    with pytest.raises(ValueError, match=line):
        load_splits(f"torchvision:{name}", root=tmp_path)


def test_usual_classes():
    unusual = {"LSUN", "VOCDetection", "EMNIST", "SUN397", "FakeData", "Sintel", "HMDB51"}
    assert not unusual & set(usual_classes())
    assert {"GTSRB", "SVHN", "PCAM", "ImageNet", "USPS", "Food101"} <= set(usual_classes())


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Imagenette", (2000, 500)),
        ("OxfordIIITPet", (222, 148)),
        ("FashionMNIST", (60000, 10000)),
        ("StanfordCars", (1372, 588)),
    ],
)
def test_real(name, sizes):
    train, test, *_ = load_splits(f"torchvision:{name}", root=REAL, size=32)
    assert (len(train), len(test)) == sizes
    assert train[len(train) - 1][0].shape == (3, 32, 32)
