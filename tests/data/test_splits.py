import os
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as tv

from sslkit.data import DATASETS, ArrayDataset, LabelledImages, Splits, about, load_splits, splits

REAL = Path(os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit/data").expanduser()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def urlopen(request, *args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.delenv("SSLKIT_DATA", raising=False)


def paint(path, label, split):
    """An image that shows its class (red) and split (green)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (40 * label + 20, 230 if split == "test" else 20, 90)
    Image.new("RGB", (12, 8), colour).save(path, "JPEG", quality=95)


def seen(image):
    """What ``paint`` put into a decoded image."""
    red, green, _ = image.float().mean((1, 2)).tolist()
    return round((red - 20) / 40), "test" if green > 125 else "train"


# a folder


def write_folder(root):
    for split, n in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(n):
                paint(root / split / name / f"{i}.JPG", label, split)
    paint(root / "train" / "dog" / "puppies" / "x.jpeg", 1, "train")
    paint(root / "train" / "dog" / "._x.jpg", 0, "train")
    paint(root / "train" / "dog" / ".thumbs" / "x.jpg", 0, "train")
    paint(root / "train" / ".hidden" / "x.jpg", 0, "train")
    (root / "train" / "dog" / "about.txt").write_text("no image")
    (root / "train" / "list.txt").write_text("no class")


def test_folder(tmp_path, monkeypatch):
    write_folder(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, root in (
        ("folder:pets", tmp_path / "ignored"),
        (f"folder:{tmp_path}/pets", None),
        ("folder:~/pets", None),
        ("folder", "pets"),
        ("folder", tmp_path / "pets"),
    ):
        found = load_splits(name, root=root, size=8)
        assert isinstance(found, Splits)
        assert found[2:] == ("pets", "accuracy", None, "")
        assert found.train.classes == found.test.classes == ("cat", "dog")
        assert found.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
        assert found.test.labels.tolist() == [0, 0, 1, 1]
        for split, data in (("train", found.train), ("test", found.test)):
            assert [(label, split) for _, label in data] == [seen(image) for image, _ in data]
            assert data[0][0].shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("remove", "add", "kind", "message"),
    [
        ("test/dog", "", ValueError, r"train/ and test/ of '.*' differ: of 1 .*'dog', only in tr"),
        (
            "train/cat",
            "",
            ValueError,
            r"differ: of 1 in one of them, the first is 'cat', only in te",
        ),
        ("", "train/a", ValueError, r"differ: .*'a', only in train/$"),
        ("", "train/a test/a", ValueError, r"no image in '.*/train/a'"),
        ("test", "", FileNotFoundError, r"no folder '.*/test': a set needs train/ and test/"),
        ("train", "", FileNotFoundError, r"no folder '.*/train': a set needs"),
        ("train/cat train/dog test/cat test/dog", "", ValueError, "no image to train with"),
        (
            "train/cat test/cat",
            "",
            ValueError,
            r"^folder:.*: its 4 images to train with show one class, 'dog': at least two are",
        ),
    ],
)
def test_folder_that_will_not_do(tmp_path, remove, add, kind, message):
    write_folder(tmp_path)
    for folder in remove.split():
        (tmp_path / folder).rename(tmp_path / folder.replace("/", "-").replace("t", "T", 1))
    for folder in add.split():
        (tmp_path / folder).mkdir()
    with pytest.raises(kind, match=message) as error:
        load_splits(f"folder:{tmp_path}")
    assert "\n" not in str(error.value)


# in memory


def test_shapes(few_test_images):
    found = load_splits("shapes", limit=50, size=224)
    assert found[2:] == ("shapes", "accuracy", "first 50 to train with", "")
    assert (len(found.train), len(found.test)) == (50, 500)
    assert found.train[0][0].shape == (3, 32, 32)
    assert len(found.test.classes) == 10
    assert torch.bincount(found.train.labels).tolist() == [5] * 10


@pytest.mark.parametrize(
    ("name", "side", "title"), [("fashion_mnist", 28, "Fashion-MNIST"), ("stl10", 96, "STL-10")]
)
def test_named_set_in_memory(tmp_path, monkeypatch, name, side, title):
    """Read as ``load`` reads it, the classes by their numbers where it knows no names."""
    asked = []

    def read(root, split, download):
        asked.append((root, split, download))
        images = torch.full((20, 3, side, side), len(split), dtype=torch.uint8)
        return ArrayDataset(images, torch.arange(20) % 10)

    monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(read=read))
    (tmp_path / DATASETS[name].folder).mkdir()
    found = load_splits(name, root=tmp_path)
    assert asked == [(tmp_path, "train", False), (tmp_path, "test", False)]
    assert found[2:] == (title, "accuracy", None, DATASETS[name].homepage)
    assert found.train.classes == found.test.classes == tuple("0123456789")
    assert (found.train[0][0].unique(), found.test[0][0].unique()) == (5, 4)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist", "stl10"])
def test_absent_set_that_cannot_be_fetched(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"{name} is not at .*the download failed.*get it"):
        load_splits(name, root=tmp_path)


# a limit


def test_limit(tmp_path):
    write_folder(tmp_path)
    whole = load_splits(f"folder:{tmp_path}").train
    found = load_splits(f"folder:{tmp_path}", limit=5)
    places = [whole.paths.index(path) for path in found.train.paths]
    assert places == sorted(places)  # a draw out of all, in their order
    assert set(found.train.labels.tolist()) == {0, 1}
    assert found.train.labels.tolist() == whole.labels[places].tolist()
    assert torch.equal(found.train[4][0], whole[places[4]][0])
    again = load_splits(f"folder:{tmp_path}", limit=5)
    assert again.train.paths == found.train.paths
    assert len(found.test) == 4
    assert found.differs == "drawn 5 to train with"
    assert load_splits(f"folder:{tmp_path}", limit=8).differs is None
    line = "image to train with shows one class|images to train with show one class|have no image"
    with pytest.raises(ValueError, match=line):
        load_splits(f"folder:{tmp_path}", limit=1)


def test_limit_that_leaves_a_class_out(tmp_path):
    for split in ("train", "test"):
        for label in range(4):
            paint(tmp_path / split / f"class{label}" / "a.jpg", label, split)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole line is compared
        load_splits(f"folder:{tmp_path}", limit=2)
    text = "2 of the 4 test classes have no image among the 2 to train with"
    assert str(error.value).startswith(f"folder:{tmp_path}: {text}, the first is 'class")


# labels


def test_labels_are_checked(monkeypatch, tmp_path):
    def refused(train, test, name="dtd"):
        rows = [torch.tensor(part) for part in (train, test)]
        parts = [LabelledImages([], labels, ["a", "b", "c"]) for labels in rows]
        monkeypatch.setattr(splits, "read_row", lambda *args: parts)
        try:
            load_splits(name)
        except ValueError as error:
            return str(error)

    assert refused([0, 1, 2], [1, 2]) is None
    line = "dtd: the label 3 of a train image is outside 0 to 2, one of 1 such"
    assert refused([0, 1, 3], [0, 1]) == line
    line = "dtd: the label -1 of a test image is outside 0 to 2, one of 2 such"
    assert refused([0, 1, 2], [-1, 1, -1, 2]) == line
    line = "dtd: its 2 images to test with show one class, 'b': at least two are needed"
    assert refused([0, 1, 2], [1, 1]) == line
    line = "dtd: 1 of the 3 test classes have no training image, the first is 'b'"
    assert refused([0, 2], [0, 1, 2]) == line
    # classes that only one split shows
    assert refused([0, 1], [2, 3], "cars196").startswith("cars196: the label 3 of a test image")
    assert refused([0, 1], [1, 2], "cars196") == "cars196: class 'b' is in train and in test"
    # several a class
    assert refused([[1, 0, 0], [-1, 1, 0]], [[1, 1, -1]], "voc2007") is None
    assert "outside -1 to 1" in refused([[1, 1, 2]], [[1, 1, 0]], "voc2007")
    assert "have no training image, the first is 'c'" in refused(
        [[1, 1, -1]], [[1, 0, 1]], "voc2007"
    )
    assert "images to test with show one class, none" in refused(
        [[1, 1, 0]], [[0, 0, -1]], "voc2007"
    )


# names


def test_about_needs_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert about("flowers102")[:2] == ("Flowers-102", "mean_per_class")
    assert about("cub200").title == "CUB-200-2011"
    assert about("cifar100").homepage == DATASETS["cifar100"].homepage
    assert about("stl10") == ("STL-10", "accuracy", DATASETS["stl10"].homepage)
    gtsrb = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.GTSRB.html"
    assert about("torchvision:GTSRB") == ("GTSRB", "accuracy", gtsrb)
    cats = "https://huggingface.co/datasets/me/cats"
    assert about("hf:me/cats:small") == ("me/cats:small", "accuracy", cats)
    (tmp_path / "me" / "cats").mkdir(parents=True)
    assert about("hf:me/cats") == ("cats", "accuracy", "")
    assert about("folder:../birds/") == ("birds", "accuracy", "")
    assert about("classes:../birds/") == ("birds", "accuracy", "")
    assert [about(name).title for name in ("sop", "inshop", "omniglot")] == [
        *("Stanford Online Products", "In-Shop", "Omniglot")
    ]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flowers", {}, r"unknown data set 'flowers': choose from food101.*'flowers102'\?"),
        (
            "imagenet",
            {},
            r"unknown data set 'imagenet': choose from .*, cub200, .*, inshop, omniglot",
        ),
        ("imagenet", {}, r", folder:DIR, classes:DIR, torchvision:CLASS, hf:PATH$"),
        (None, {}, "unknown data set None"),
        ("dtd", {"size": 0}, "size must be at least 1, got 0"),
        ("dtd", {"limit": 0}, "limit must be at least 1, got 0"),
        ("folder", {}, r"unknown data set 'folder': .*did you mean 'folder:DIR'\?"),
        ("folder:", {}, r"unknown data set 'folder:': .*did you mean 'folder:DIR'\?"),
        ("classes", {}, r"unknown data set 'classes': .*did you mean 'classes:DIR'\?"),
        ("torchvision:", {}, "unknown data set 'torchvision:'"),
        ("hf", {}, "unknown data set 'hf'"),
        ("dtd:2", {}, "unknown data set 'dtd:2'"),
    ],
)
def test_wrong_request(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        load_splits(name, **options)
    assert "\n" not in str(error.value)


# the real ones


@pytest.mark.data
def test_real_folder(tmp_path):
    for split, there in (("train", "train"), ("test", "val")):
        (tmp_path / split).symlink_to(REAL / "imagenette2" / there)
    train, test, *_ = load_splits("folder", root=tmp_path, size=32)
    assert torch.bincount(train.labels).tolist() == [200] * 10
    assert torch.bincount(test.labels).tolist() == [50] * 10
    assert train[1999][0].shape == (3, 32, 32)


@pytest.mark.data
def test_real_fashion_mnist():
    found = load_splits("fashion_mnist", root=REAL)
    assert (len(found.train), len(found.test), found.differs) == (60000, 10000, None)
    theirs = tv.FashionMNIST(REAL, train=False)
    assert found.test.labels.tolist() == theirs.targets.tolist()
    assert np.array_equal(found.test.images[:, 0], theirs.data)
