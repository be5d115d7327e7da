import copy
import os
import shutil

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset

from sslkit.backbones import NIN, ResNet9
from sslkit.data import ArrayDataset, ImageFolder, LabelledImages
from sslkit.evaluation.fingerprint import fingerprint
from sslkit.views import EvaluationView, SimCLRViews

DATA = ArrayDataset(torch.arange(5 * 48).reshape(5, 3, 4, 4).byte(), torch.arange(5))
NET = ResNet9(2)
VIEW = EvaluationView(4)


def photos(folder, names=("a.png", "b/c.png")):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (i, i, i)).save(folder / name)
        os.utime(folder / name, ns=(10**18, 10**18 + i))
    return ImageFolder(folder, 8)


def changed(net, change):
    net = copy.deepcopy(net)
    with torch.no_grad():
        change(net)
    return net


def test_the_same_is_the_same():
    again = EvaluationView(4, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    key = fingerprint(copy.deepcopy(NET).train(), copy.deepcopy(DATA), again)
    assert key == fingerprint(NET.eval(), DATA, VIEW)
    assert len(key) == 32
    assert set(key) <= set("0123456789abcdef")
    strided = copy.copy(DATA)
    strided.images = DATA.images.to(memory_format=torch.channels_last)
    assert fingerprint(NET, strided, VIEW) == key


def test_whatever_changes_a_feature_changes_it():
    images, labels = DATA.images, DATA.labels
    pixel, moved = images.clone(), labels.clone()
    pixel[4, 2, 3, 3] += 1
    moved[4] = 0
    variants = {
        "weight": (changed(NET, lambda n: n.stem[0].weight[0, 0, 0, 0].mul_(1.0001)), DATA, VIEW),
        "statistic": (changed(NET, lambda n: n.stem[1].running_var[0].add_(1e-6)), DATA, VIEW),
        "dtype": (changed(NET, lambda n: n.double()), DATA, VIEW),
        "architecture": (ResNet9(3), DATA, VIEW),
        "class": (NIN(), DATA, VIEW),
        "pixel": (NET, ArrayDataset(pixel, labels), VIEW),
        "label": (NET, ArrayDataset(images, moved), VIEW),
        "no labels": (NET, ArrayDataset(images), VIEW),
        "shape": (NET, ArrayDataset(images.reshape(5, 3, 2, 8), labels), VIEW),
        "rows": (NET, ArrayDataset(images[:4], labels[:4]), VIEW),
        "subset": (NET, Subset(DATA, range(5)), VIEW),
        "order": (NET, Subset(DATA, [0, 1, 2, 4, 3]), VIEW),
        "size": (NET, DATA, EvaluationView(5)),
        "normalisation": (NET, DATA, EvaluationView(4, "half")),
        "none": (NET, DATA, EvaluationView(4, None)),
        "grey": (NET, DATA, EvaluationView(4, grayscale=True)),
    }
    found = {name: fingerprint(*variant) for name, variant in variants.items()}
    found |= {
        "as it is": fingerprint(NET, DATA, VIEW),
        "one layer": fingerprint(NET, DATA, VIEW, ["stem"]),
        "two layers": fingerprint(NET, DATA, VIEW, ["stem", "stage1"]),
        "two in turn": fingerprint(NET, DATA, VIEW, ["stage1", "stem"]),
        "device": fingerprint(NET, DATA, VIEW, device="cuda:1"),
    }
    assert len(set(found.values())) == len(found)


def test_files_count_by_their_place_in_the_folder_size_and_time(tmp_path):
    folder = photos(tmp_path / "x")
    key = fingerprint(NET, folder, VIEW)
    shutil.copytree(tmp_path / "x", tmp_path / "elsewhere")  # which keeps the times
    assert fingerprint(NET, ImageFolder(tmp_path / "elsewhere", 8), VIEW) == key
    variants = [fingerprint(NET, ImageFolder(tmp_path / "x", 9), VIEW)]
    os.utime(folder.paths[1], ns=(10**18, 10**18 + 2))
    variants.append(fingerprint(NET, folder, VIEW))
    folder = photos(tmp_path / "x")
    with folder.paths[0].open("ab") as file:
        file.write(b"1")
    os.utime(folder.paths[0], ns=(10**18, 10**18))
    variants.append(fingerprint(NET, folder, VIEW))
    variants.append(fingerprint(NET, photos(tmp_path / "y", ("a.png", "b/d.png")), VIEW))
    assert len({key, *variants}) == 5
    folder.paths[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        fingerprint(NET, folder, VIEW)


def test_which_images_are_queries_counts(tmp_path):
    paths = photos(tmp_path).paths
    data = LabelledImages(paths, torch.tensor([0, 0]), ["a"], 8)
    keys = [fingerprint(NET, data, VIEW)]
    for queries in ([True, False], [False, True]):
        data.queries = torch.tensor(queries)
        keys.append(fingerprint(NET, data, VIEW))
    assert len(set(keys)) == 3


@pytest.mark.parametrize("name", ["fingerprint", "_fingerprint"])
def test_a_data_set_may_say_it_itself(name):
    class Own(Dataset):
        def __len__(self):
            return 3

    data, other = Own(), Own()
    setattr(data, name, "abc")
    setattr(other, name, "abd")
    assert fingerprint(NET, data, VIEW) != fingerprint(NET, other, VIEW)


def test_what_cannot_be_told_is_refused_in_one_line():
    class Bare(Dataset):
        def __len__(self):
            return 3

    class Learnt(EvaluationView):
        def __init__(self):
            super().__init__(4)
            self.shift = torch.nn.Parameter(torch.zeros(1))

    class Odd(EvaluationView):
        def __init__(self):
            super().__init__(4)
            self.of = Bare()

    with pytest.raises(ValueError, match="a Bare has neither paths nor a fingerprint"):
        fingerprint(NET, Bare(), VIEW)
    with pytest.raises(ValueError, match="SimCLRViews is not a view that always gives the same"):
        fingerprint(NET, DATA, SimCLRViews(4))
    with pytest.raises(ValueError, match="Identity is not a view"):
        fingerprint(NET, DATA, torch.nn.Identity())
    with pytest.raises(ValueError, match="Learnt holds tensors or modules"):
        fingerprint(NET, DATA, Learnt())
    with pytest.raises(ValueError, match="Odd has arguments that are no plain data"):
        fingerprint(NET, DATA, Odd())
