import json
import sys

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sslkit.data import ImageError, hugging_face, load_splits

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """The hub does not answer, and nothing of it is in the cache."""
    monkeypatch.setattr(hugging_face, "answers", lambda url: False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")


def picture(label, split="train"):
    """An image that shows its class (red) and split (green)."""
    return Image.new("RGB", (12, 8), (40 * label + 20, 230 if split == "test" else 20, 90))


def seen(image):
    """What ``picture`` put into a decoded image."""
    red, green, _ = image.float().mean((1, 2)).tolist()
    return round((red - 20) / 40), "test" if green > 125 else "train"


def part(labels, split="train", names=("cat", "dog", "owl"), **columns):
    features = {"id": datasets.Value("int64"), "photo": datasets.Image()}
    features["kind"] = datasets.ClassLabel(names=list(names))
    images = [picture(0 if label is None else label, split) for label in labels]
    rows = {"id": list(range(len(labels))), "photo": images, "kind": list(labels)}
    for name, (feature, values) in columns.items():
        features[name], rows[name] = feature, values
    return datasets.Dataset.from_dict(rows, datasets.Features(features))


@pytest.fixture
def saved(tmp_path):
    """Writes splits by ``save_to_disk``; returns the name of the set."""

    def save(**parts):
        folder = tmp_path / "pets"
        datasets.DatasetDict(parts).save_to_disk(folder)
        return f"hf:{folder}"

    return save


def check(found, train, test):
    for split, data, labels in (("train", found.train, train), ("test", found.test, test)):
        assert data.classes == ("cat", "dog", "owl")
        assert data.labels.dtype == torch.int64
        assert data.labels.tolist() == labels == [label for _, label in data]
        assert [seen(image) for image, _ in data] == [(label, split) for label in labels]
        assert data[0][0].shape == (3, 6, 6)
        assert data[0][0].dtype == torch.uint8


def test_saved_to_disk(saved):
    name = saved(train=part([2, 0, 1, 1]), test=part([1, 2], "test"), validation=part([0]))
    found = load_splits(name, size=6)
    check(found, [2, 0, 1, 1], [1, 2])
    assert found[2:] == ("pets", "accuracy", None, "")
    images, labels = next(iter(DataLoader(found.train, 4, num_workers=1)))
    assert torch.equal(labels, found.train.labels)
    assert torch.equal(images[2], found.train[2][0])


def test_rows_chosen_before_saving(saved):
    shuffled = part([2, 0, 1, 1]).select([3, 1, 0])
    check(load_splits(saved(train=shuffled, test=part([1, 2], "test")), size=6), [1, 0, 2], [1, 2])


@pytest.mark.parametrize("test", [None, [-1, -1], [None, None]])
def test_validation_where_test_has_no_labels(saved, test):
    parts = {} if test is None else {"test": part(test)}
    name = saved(train=part([0, 1, 2]), validation=part([2, 1], "test"), **parts)
    found = load_splits(name, size=6)
    check(found, [0, 1, 2], [2, 1])
    assert found.differs == "scored on its validation split"


def test_limit(saved):
    name = saved(train=part([0, 1] * 4), validation=part([0, 1]))
    found = load_splits(name, limit=6)
    assert found.differs == "scored on its validation split; drawn 6 to train with"
    whole = load_splits(name)
    prints = [s.fingerprint for s in (found.train, whole.train, whole.test)]
    assert len(set(prints)) == 3
    assert load_splits(name).train.fingerprint == whole.train.fingerprint


def write_folder(root):
    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog", "owl")):
            (root / split / name).mkdir(parents=True)
            picture(label, split).save(root / split / name / "a.png")


def test_folder_of_images(tmp_path, monkeypatch):
    write_folder(tmp_path / "pets")
    check(load_splits(f"hf:{tmp_path}/pets", size=6), [0, 1, 2], [0, 1, 2])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("hf:~/pets", "hf:pets"):
        found = load_splits(name, size=6)
        assert (found.title, found.homepage) == ("pets", "")


def test_parquet_with_configurations(tmp_path):
    lines = ["---", "configs:"]
    for config, labels in (("small", [0, 1]), ("large", [2, 0, 1])):
        lines += [f"- config_name: {config}", "  data_files:"]
        for split in ("train", "test"):
            file = f"{config}-{split}.parquet"
            (tmp_path / "pets").mkdir(exist_ok=True)
            part(labels, split).to_parquet(tmp_path / "pets" / file)
            lines += [f"  - split: {split}", f"    path: {file}"]
    (tmp_path / "pets" / "README.md").write_text("\n".join([*lines, "---", ""]))
    large = load_splits(f"hf:{tmp_path}/pets:large", size=6)
    check(large, [2, 0, 1], [2, 0, 1])
    assert (large.title, large.homepage) == ("pets:large", "")
    check(load_splits(f"hf:{tmp_path}/pets:small", size=6), [0, 1], [0, 1])
    for config in ("", ":huge"):
        with pytest.raises(ValueError, match=r"^hf:.* cannot be read: .*small") as error:
            load_splits(f"hf:{tmp_path}/pets{config}")
        assert "\n" not in str(error.value)


def test_damaged_image(saved):
    broken = part([0, 1, 2]).cast_column("photo", datasets.Image(decode=False))
    broken = broken.map(
        lambda row, i: {"photo": {"bytes": b"<>", "path": None}} if i == 1 else row,
        with_indices=True,
        features=broken.features,
    )
    broken = broken.cast_column("photo", datasets.Image())
    train = load_splits(saved(train=broken, test=part([0, 1])), size=6).train
    assert train[2][1] == 2
    with pytest.raises(ImageError, match=r"^cannot read image 1 of hf:/.*pets: not an image$"):
        train[1]


def test_image_file_that_has_gone(tmp_path):
    write_folder(tmp_path / "pets")
    train = load_splits(f"hf:{tmp_path}/pets", size=6).train
    (tmp_path / "pets" / "train" / "dog" / "a.png").unlink()
    with pytest.raises(ImageError, match=r"cannot read the image '.*/dog/a.png': No such file"):
        train[1]


class Trouble:
    other = part([0, 1], names=("cow", "pig"))
    two = part([0, 1], kind2=(datasets.ClassLabel(names=["a", "b"]), [0, 1]))
    views = part([0, 1], photo2=(datasets.Image(), [picture(0)] * 2))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": part([0, 1])}, "needs the splits train and test, and has train$"),
        ({"test": part([0, 1])}, "needs the splits train and test, and has test$"),
        (
            {"train": part([0, 1]).remove_columns("kind"), "test": part([0, 1])},
            "needs one column of type ClassLabel and has 0: its columns are id, photo$",
        ),
        (
            {"train": part([0, 1]).remove_columns("photo"), "test": part([0, 1])},
            "needs one column of type Image and has 0: its columns are id, kind$",
        ),
        ({"train": Trouble.two, "test": Trouble.two}, "type ClassLabel and has 2: .*kind, kind2$"),
        ({"train": Trouble.views, "test": Trouble.views}, "type Image and has 2: .*photo2$"),
        ({"train": part([0, 1]), "test": part([-1, -1])}, "no labels to test with: all are miss"),
        ({"train": part([0, None]), "test": part([0, 1])}, "the label -1 of a train image is out"),
        ({"train": part([0, 1]), "test": part([0, 2])}, "1 of the 2 test classes have no train"),
        ({"train": part([0, 1]), "test": part([1, 1])}, "2 images to test with show one class"),
        ({"train": part([0, 1]), "test": Trouble.other}, "has other classes in train than in test"),
    ],
)
def test_set_that_will_not_do(tmp_path, parts, message):
    for split, rows in parts.items():  # as DatasetDict does, which wants them alike
        rows.save_to_disk(tmp_path / "pets" / split)
    (tmp_path / "pets" / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}))
    with pytest.raises(ValueError, match=f"^hf:.*{message}") as error:
        load_splits(f"hf:{tmp_path}/pets")
    assert "\n" not in str(error.value)


def test_one_split_alone(tmp_path):
    part([0, 1]).save_to_disk(tmp_path / "pets")
    with pytest.raises(ValueError, match=r"^hf:.*pets is one split: save a DatasetDict of train"):
        load_splits(f"hf:{tmp_path}/pets")


def test_damaged_file(saved, tmp_path):
    name = saved(train=part([0, 1]), test=part([0, 1]))
    for file in (tmp_path / "pets").rglob("*.arrow"):
        file.write_bytes(b"no arrow")
    with pytest.raises(ValueError, match=r"^hf:.* cannot be read: .+") as error:
        load_splits(name)
    assert "\n" not in str(error.value)


def test_script_is_never_run(tmp_path):
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "pets.py").write_text("raise SystemExit")
    with pytest.raises(ValueError, match=r"^hf:.* cannot be read: Dataset scripts are no longer"):
        load_splits(f"hf:{tmp_path}/pets")


@pytest.mark.parametrize("name", ["hf:somebody/pets", "hf:somebody/pets:small", "hf:no/such/dir"])
def test_absent_without_network(name):
    before = datasets.config.HF_HUB_OFFLINE
    line = f"^{name} cannot be had: .* is no folder, nor in the cache .* hub does not answer"
    with pytest.raises(FileNotFoundError, match=line.replace(".* is no", "is no")) as error:
        load_splits(name)
    assert "\n" not in str(error.value)
    assert before == datasets.config.HF_HUB_OFFLINE


def test_hub(monkeypatch):
    """Asked for where it answers; offline where it does not, and as before afterwards."""
    asked = []

    def load_dataset(path, config):
        asked.append((path, config, datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE))
        return datasets.DatasetDict(train=part([0, 1]), test=part([0, 1], "test"))

    hub = hugging_face.huggingface_hub.constants
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    found = load_splits("hf:me/pets:small", size=6)
    monkeypatch.setattr(hugging_face, "answers", lambda url: True)
    load_splits("hf:me/pets", size=6)
    assert asked == [("me/pets", "small", True, True), ("me/pets", None, False, False)]
    assert found.title == "me/pets:small"
    assert found.homepage == "https://huggingface.co/datasets/me/pets"
    check(found, [0, 1], [0, 1])
    assert not hub.HF_HUB_OFFLINE


def test_hub_that_refuses(monkeypatch):
    def load_dataset(path, config):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'me/pets' doesn't exist")

    monkeypatch.setattr(hugging_face, "answers", lambda url: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(FileNotFoundError, match="hf:me/pets cannot be had: Dataset 'me/pets' does"):
        load_splits("hf:me/pets")


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    line = r"^hf:x/y is read by the package datasets, which is not installed: pip install 'sslkit"
    with pytest.raises(ValueError, match=line):
        load_splits("hf:x/y")
