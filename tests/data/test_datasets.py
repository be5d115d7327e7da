import gzip
import hashlib
import io
import os
import pickle
import socket
import struct
import tarfile
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as tv

from sslkit.data.datasets import DATASETS, ArrayDataset, load
from sslkit.data.folder import ImageFolder

REAL = Path(os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit/data")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every request fails as it does without a network; the list of what was asked for."""
    asked = []

    def urlopen(request, *args, **kwargs):
        asked.append(request.full_url)
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.delenv("SSLKIT_DATA", raising=False)
    return asked


def md5(data):
    return hashlib.md5(data).hexdigest()


# each set as its authors store it, in miniature, written without torchvision


def cifar_files(fine):
    """name -> bytes, and split -> (images (N, 3, 32, 32), labels)."""
    names = {"train": ["train"], "test": ["test"]}
    if not fine:
        names = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    files, truth = {}, {}
    for split, batches in names.items():
        images = RNG.integers(0, 256, (10, 3, 32, 32), np.uint8)
        labels = [int(label) for label in RNG.integers(0, 100 if fine else 10, 10)]
        truth[split] = images, labels
        n = 10 // len(batches)
        for i, name in enumerate(batches):
            part = slice(i * n, (i + 1) * n)
            batch = {"data": images[part].reshape(n, 3072)}
            batch["fine_labels" if fine else "labels"] = labels[part]
            files[name] = pickle.dumps(batch)
    words = [f"class {i}" for i in range(100 if fine else 10)]
    meta = {"fine_label_names" if fine else "label_names": words}
    files["meta" if fine else "batches.meta"] = pickle.dumps(meta)
    return files, truth, words


def write_cifar(root, monkeypatch, fine):
    files, truth, words = cifar_files(fine)
    cls = tv.CIFAR100 if fine else tv.CIFAR10
    for part in ("train_list", "test_list"):
        listed = [[name, md5(files[name])] for name, _ in getattr(cls, part)]
        monkeypatch.setattr(cls, part, listed)
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": md5(files[cls.meta["filename"]])})
    write(root / cls.base_folder, files)
    return truth, words


def write(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def fashion_files():
    files, truth = {}, {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = RNG.integers(0, 256, (7, 28, 28), np.uint8)
        labels = RNG.integers(0, 10, 7).astype(np.uint8)
        files[f"{prefix}-images-idx3-ubyte"] = (
            struct.pack(">4i", 0x803, 7, 28, 28) + images.tobytes()
        )
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">2i", 0x801, 7) + labels.tobytes()
        truth[split] = images, labels.tolist()
    return files, truth


def write_stl10(root, monkeypatch):
    """Column-major planes and labels from 1, as the set's page says."""
    files, truth = {}, {}
    for split in ("train", "test", "unlabeled"):
        images = RNG.integers(0, 256, (4, 3, 96, 96), np.uint8)
        labels = RNG.integers(0, 10, 4).astype(np.uint8)
        files[f"{split}_X.bin"] = images.transpose(0, 1, 3, 2).tobytes()
        if split != "unlabeled":
            files[f"{split}_y.bin"] = (labels + 1).tobytes()
        truth[split] = images, labels.tolist()
    for part in ("train_list", "test_list"):
        listed = [[name, md5(files[name])] for name, _ in getattr(tv.STL10, part)]
        monkeypatch.setattr(tv.STL10, part, listed)
    words = [f"class {i}" for i in range(10)]
    files["class_names.txt"] = "\n".join(words).encode()
    write(root / "stl10_binary", files)
    return truth, words


def check(data, images, labels, words):
    assert isinstance(data, ArrayDataset)
    assert data.images.dtype == torch.uint8
    assert np.array_equal(data.images.numpy(), images)
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == labels
    assert data.classes == tuple(words)
    image, label = data[1]
    assert np.array_equal(image.numpy(), images[1])
    assert label == labels[1]
    assert type(label) is int


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("fine", [False, True])
def test_cifar(tmp_path, monkeypatch, no_network, fine, split):
    truth, words = write_cifar(tmp_path, monkeypatch, fine)
    name = "cifar100" if fine else "cifar10"
    data = load(name, split, root=tmp_path)
    check(data, *truth[split], words)
    assert data.images.is_contiguous()
    assert no_network == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist(tmp_path, split):
    files, truth = fashion_files()
    write(tmp_path / "FashionMNIST" / "raw", files)
    images, labels = truth[split]
    data = load("fashion_mnist", split, root=str(tmp_path))
    check(data, np.stack([images] * 3, 1), labels, tv.FashionMNIST.classes)


@pytest.mark.parametrize("split", ["train", "test"])
def test_stl10(tmp_path, monkeypatch, split):
    truth, words = write_stl10(tmp_path, monkeypatch)
    check(load("stl10", split, root=tmp_path), *truth[split], words)


def test_stl10_unlabeled(tmp_path, monkeypatch):
    truth, _ = write_stl10(tmp_path, monkeypatch)
    data = load("stl10", "unlabeled", root=tmp_path)
    assert np.array_equal(data.images.numpy(), truth["unlabeled"][0])
    assert data.labels is data.classes is None
    assert data[2][1] == -1


def test_shapes():
    train, test = load("shapes", limit=20), load("shapes", "test", limit=20)
    assert train.images.shape == (20, 3, 32, 32)
    assert train.images.dtype == torch.uint8
    assert train.labels.dtype == torch.int64
    assert len(train.classes) > train.labels.max()
    assert not torch.equal(train.images, test.images)


def test_folder(tmp_path):
    for i in range(3):
        Image.new("RGB", (30, 20), (i, 0, 0)).save(tmp_path / f"{i}.png")
    data = load("folder", root=tmp_path, size=8)
    assert isinstance(data, ImageFolder)
    assert data[2][0].shape == (3, 8, 8)
    assert load("folder", root=tmp_path)[0][0].shape == (3, 224, 224)
    assert len(load("folder", root=tmp_path, limit=2)) == 2


@pytest.mark.parametrize("name", ["shapes", "fashion_mnist"])
def test_table_says_what_comes(tmp_path, name):
    write(tmp_path / "FashionMNIST" / "raw", fashion_files()[0])
    source = DATASETS[name]
    for split in source.splits:
        data = load(name, split, root=tmp_path, limit=2)
        assert data.images.shape[1:] == (source.channels, source.size, source.size)


# where it is looked for


def test_root_argument_then_environment_then_home(tmp_path, monkeypatch):
    def fashion(root):
        files, truth = fashion_files()
        write(root / "FashionMNIST" / "raw", files)
        return torch.from_numpy(truth["train"][0])

    home = fashion(tmp_path / ".cache" / "sslkit" / "data")
    environment, argument = fashion(tmp_path / "environment"), fashion(tmp_path / "argument")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert torch.equal(load("fashion_mnist").images[:, 0], home)
    assert torch.equal(load("fashion_mnist", root="~/argument").images[:, 1], argument)
    monkeypatch.setenv("SSLKIT_DATA", str(tmp_path / "environment"))
    assert torch.equal(load("fashion_mnist").images[:, 2], environment)
    assert torch.equal(load("fashion_mnist", root="~/argument").images[:, 1], argument)
    monkeypatch.setenv("SSLKIT_DATA", "")
    assert torch.equal(load("fashion_mnist").images[:, 0], home)


# sizes


@pytest.mark.parametrize("size", [14, 28, 40])
def test_size(tmp_path, size):
    files, truth = fashion_files()
    write(tmp_path / "FashionMNIST" / "raw", files)
    data = load("fashion_mnist", "test", root=tmp_path, size=size)
    assert data.images.shape == (7, 3, size, size)
    assert data.images.dtype == torch.uint8
    for image, source in zip(data.images, truth["test"][0], strict=True):
        exact = Image.fromarray(source.astype(np.float32))
        wanted = np.asarray(exact.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 255)
        assert np.abs(image.numpy() - wanted).max() <= 0.51


def test_size_over_several_chunks():
    from sslkit.data.datasets import _resized

    images = torch.from_numpy(RNG.integers(0, 256, (10, 3, 8, 8), np.uint8))
    assert torch.equal(_resized(images, 5, chunk=4), _resized(images, 5))
    assert _resized(images[:0], 5).shape == (0, 3, 5, 5)


def test_limit(tmp_path):
    files, truth = fashion_files()
    write(tmp_path / "FashionMNIST" / "raw", files)
    data = load("fashion_mnist", root=tmp_path, limit=3, size=14)
    assert len(data) == len(data.labels) == 3
    assert data.labels.tolist() == truth["train"][1][:3]
    assert len(load("fashion_mnist", root=tmp_path, limit=99)) == 7


# absent


def left_in(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*"))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist", "stl10"])
def test_absent_without_network(tmp_path, no_network, capfd, name):
    before = socket.getdefaulttimeout()
    with pytest.raises(FileNotFoundError) as error:
        load(name, root=tmp_path)
    text = str(error.value)
    folder, homepage = DATASETS[name].folder, DATASETS[name].homepage
    for part in (name, str(tmp_path / folder), homepage, "--data.root", "SSLKIT_DATA", "Name or"):
        assert part in text
    assert "\n" not in text
    assert no_network
    assert left_in(tmp_path) == []
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() == before


def test_absent_and_download_off(tmp_path, no_network):
    with pytest.raises(FileNotFoundError, match="download is off"):
        load("cifar10", root=tmp_path / "new", download=False)
    assert no_network == []
    assert left_in(tmp_path) == []


def test_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=r"cifar10 is not at .*file/cifar-10-batches-py"):
        load("cifar10", root=tmp_path / "file")


class Response(io.BytesIO):
    url = None

    def __init__(self, data):
        super().__init__(data)
        self.length = len(data)


def serve(monkeypatch, answer):
    def urlopen(request, *args, **kwargs):
        timeouts.append(socket.getdefaulttimeout())
        return Response(answer(request.full_url))

    timeouts = []
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return timeouts


def test_download(tmp_path, monkeypatch, capfd):
    """A real archive through torchvision's own code, its sum included."""
    truth, words = write_cifar(tmp_path / "made", monkeypatch, fine=False)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    archive = buffer.getvalue()
    monkeypatch.setattr(tv.CIFAR10, "tgz_md5", md5(archive))
    timeouts = serve(monkeypatch, lambda url: archive)
    check(load("cifar10", root=tmp_path / "got"), *truth["train"], words)
    assert all(0 < timeout < 15 for timeout in timeouts)
    assert {p.split("/")[0] for p in left_in(tmp_path / "got")} == {"cifar-10-batches-py"}
    monkeypatch.setattr(urllib.request, "urlopen", None)  # the second time nothing is asked
    check(load("cifar10", "test", root=tmp_path / "got"), *truth["test"], words)
    assert capfd.readouterr() == ("", "")


def test_damaged_download_leaves_nothing(tmp_path, monkeypatch, capfd):
    serve(monkeypatch, lambda url: b"half an archive")
    with pytest.raises(FileNotFoundError, match=r"cifar10 .* .the download failed: File not found"):
        load("cifar10", root=tmp_path)
    assert left_in(tmp_path) == []
    assert capfd.readouterr() == ("", "")


def test_download_that_breaks_off_does_not_poison_the_next(tmp_path, monkeypatch):
    """Fashion-MNIST's unpacked files have no sums: half a set must not be taken for a whole."""
    files, truth = fashion_files()
    packed = {f"{name}.gz": gzip.compress(data) for name, data in files.items()}
    listed = [(name, md5(packed[name])) for name, _ in tv.FashionMNIST.resources]
    monkeypatch.setattr(tv.FashionMNIST, "resources", listed)

    def breaks(url):
        name = url.rsplit("/", 1)[1]
        if "t10k-labels" in name:
            raise TimeoutError("timed out")
        return packed[name]

    serve(monkeypatch, breaks)
    with pytest.raises(FileNotFoundError, match="timed out"):
        load("fashion_mnist", root=tmp_path)
    assert left_in(tmp_path) == []
    serve(monkeypatch, lambda url: packed[url.rsplit("/", 1)[1]])
    assert load("fashion_mnist", "test", root=tmp_path).labels.tolist() == truth["test"][1]


def test_another_process_was_faster(tmp_path, monkeypatch):
    files, truth = fashion_files()
    packed = {f"{name}.gz": gzip.compress(data) for name, data in files.items()}
    listed = [(name, md5(packed[name])) for name, _ in tv.FashionMNIST.resources]
    monkeypatch.setattr(tv.FashionMNIST, "resources", listed)

    def meanwhile(url):
        if not (tmp_path / "FashionMNIST").exists():
            write(tmp_path / "FashionMNIST" / "raw", files)
        return packed[url.rsplit("/", 1)[1]]

    serve(monkeypatch, meanwhile)
    assert load("fashion_mnist", root=tmp_path).labels.tolist() == truth["train"][1]
    assert {p.split("/")[0] for p in left_in(tmp_path)} == {"FashionMNIST"}


# damaged


@pytest.mark.parametrize("harm", ["cut", "flip", "remove", "empty folder"])
def test_damaged_cifar(tmp_path, monkeypatch, no_network, harm):
    write_cifar(tmp_path, monkeypatch, fine=False)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    if harm == "empty folder":
        for file in path.parent.iterdir():
            file.unlink()
    elif harm == "remove":
        path.unlink()
    else:
        path.write_bytes(data if harm == "flip" else data[:900])
    with pytest.raises(ValueError, match=r"cifar10 at .* is damaged or incomplete .*kriz") as error:
        load("cifar10", root=tmp_path)
    assert "\n" not in str(error.value)
    assert "download=True" not in str(error.value)
    assert no_network == []
    assert path.parent.exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train-images-idx3-ubyte", lambda d: d[:-100]),
        ("train-images-idx3-ubyte", lambda d: d[:9]),
        ("train-images-idx3-ubyte", lambda d: b""),
        ("train-images-idx3-ubyte", lambda d: b"\xff" * 100),
        ("train-images-idx3-ubyte", lambda d: b"\0\0\x0d\x01" + d[4:]),
        ("train-labels-idx1-ubyte", lambda d: struct.pack(">2i", 0x801, 6) + d[9:]),
        ("train-labels-idx1-ubyte", lambda d: d[:-1] + b"\x0a"),
        ("train-labels-idx1-ubyte", None),
    ],
)
def test_damaged_fashion_mnist(tmp_path, name, data):
    files, _ = fashion_files()
    if data is None:
        del files[name]
    else:
        files[name] = data(files[name])
    write(tmp_path / "FashionMNIST" / "raw", files)
    with pytest.raises(ValueError, match=r"fashion_mnist at .* is damaged or incomplete \(.+\)"):
        load("fashion_mnist", root=tmp_path)


# wrong requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cifar1O",), r"unknown data set 'cifar1O': choose from .*mean 'cifar10'\?"),
        (("imagenet",), r"unknown data set 'imagenet': choose from cifar10, .*folder$"),
        (("cifar10", "tset"), r"unknown split of cifar10 'tset': choose from train, test.*'test'"),
        (("cifar10", "unlabeled"), r"unknown split of cifar10 'unlabeled'"),
        (("folder", "test"), r"unknown split of folder 'test': choose from train"),
        (("folder",), r"'folder' needs its root"),
        ((None,), r"unknown data set None"),
    ],
)
def test_wrong_name_or_split(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKIT_DATA", str(tmp_path))  # does not stand in for a folder's root
    with pytest.raises(ValueError, match=message):
        load(*arguments)


@pytest.mark.parametrize("what", ["size", "limit"])
@pytest.mark.parametrize("value", [0, -1])
def test_wrong_number(what, value):
    with pytest.raises(ValueError, match=f"{what} must be at least 1, got {value}"):
        load("shapes", **{what: value})


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (torch.zeros(2, 3, 4, 4), None, None, r"must be uint8 \(N, C, H, W\), got torch.float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), None, None, r"got torch.uint8 \(2, 4, 4\)"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.tensor([1]), None, r"must be int64 \(2,\)"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.ones(2), None, r"got torch.float32 \(2,\)"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.tensor([0, 2]), ["a", "b"], r"in \[0, 2\)"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.tensor([0, -1]), ["a", "b"], r"in \[0, 2\)"),
    ],
)
def test_array_dataset_refuses(images, labels, classes, message):
    with pytest.raises(ValueError, match=message):
        ArrayDataset(images, labels, classes)


def test_array_dataset_moves():
    data = ArrayDataset(torch.zeros(2, 3, 4, 4).byte(), torch.tensor([0, 1]), ["a", "b"])
    moved = data.to("meta")
    assert moved.images.device.type == moved.labels.device.type == "meta"
    assert moved.classes == ("a", "b")
    assert ArrayDataset(data.images).to("meta").labels is None


# the real ones


@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
@pytest.mark.parametrize(("split", "n"), [("train", None), ("test", 10000)])
def test_real(name, split, n):
    n = n or {"cifar10": 50000, "fashion_mnist": 60000}[name]
    data = load(name, split, root=REAL, download=False)
    assert len(data) == n
    assert torch.bincount(data.labels).tolist() == [n // 10] * 10
    mean = data.images.float().mean((0, 2, 3)) / 255
    known = {"cifar10": [0.4914, 0.4822, 0.4465], "fashion_mnist": [0.2860] * 3}[name]
    assert mean.tolist() == pytest.approx(known, abs=1e-4 if split == "train" else 0.01)
