import json

import numpy as np
import pytest
import torch
from PIL import Image

from sslkit.backbones import ResNet9
from sslkit.cli import embed, embedded
from sslkit.data import LabelledImages, load
from sslkit.evaluation import extract
from sslkit.training import export_backbone, load_backbone
from sslkit.views import EvaluationView


@pytest.fixture
def target(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "run" / "backbone.safetensors"
    export_backbone(ResNet9(2), path, {"size": 32, "normalize": "half", "step": 4})
    return str(path)


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    for i, name in enumerate(("b.png", "a/1.png", "a/ü 2.png", "c/d/3.png")):
        picture(tmp_path / "photos" / name, i)
    return tmp_path / "photos"


NAMES = ["a/1.png", "a/ü 2.png", "b.png", "c/d/3.png"]


def alone(target, path):
    """The features of one image file, extracted by themselves."""
    backbone, _ = load_backbone(target)
    dataset = LabelledImages([path], torch.tensor([0]), ["x"], 32)
    return extract(backbone, dataset, EvaluationView(32, "half")).features[0].numpy()


def test_parquet_of_a_folder(target, photos, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "deep" / "x.parquet"
    assert embed.run([target, "--data", f"folder:{photos}", "--out", str(out)]) == 0
    table = parquet.read_table(out)
    assert table.column_names == ["path", "label", "features"]
    assert str(table.schema.field("features").type) == "fixed_size_list<element: float>[16]"
    assert table["path"].to_pylist() == NAMES
    assert table["label"].to_pylist() == [None] * 4
    for name, row in zip(NAMES, table["features"].to_pylist(), strict=True):
        assert np.array_equal(np.float32(row), alone(target, photos / name))
    about = json.loads(table.schema.metadata[b"sslkit"])
    assert (about["step"], about["size"], about["classes"]) == (4, 32, None)
    assert capsys.readouterr().err == f"embeddings: {out}, 4 x 16\n"
    assert [path.name for path in out.parent.iterdir()] == ["x.parquet"]


def test_parquet_of_a_set(target, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "x.parquet"
    argv = [target, "--data", "shapes", "--split", "test", "--limit", "40", "--out", str(out)]
    assert embed.run(argv) == 0
    table = parquet.read_table(out)
    assert table["index"].to_pylist() == list(range(40))
    data = load("shapes", "test", limit=40)
    assert table["label"].to_pylist() == data.labels.tolist()
    backbone, _ = load_backbone(target)
    expected = extract(backbone, data, EvaluationView(32, "half")).features
    assert np.array_equal(np.float32(table["features"].to_pylist()), expected.numpy())


def test_damaged_images_have_no_row_and_are_counted(target, photos, tmp_path, capsys):
    def rows(name):
        out = tmp_path / f"{name}.npy"
        assert embed.run([target, "--data", f"folder:{photos}", "--out", str(out)]) == 0
        paths = (tmp_path / f"{name}.paths.txt").read_text().splitlines()
        return np.load(out), paths, capsys.readouterr().err

    features, paths, said = rows("good")
    assert (features.dtype, paths, "cannot be read" in said) == (np.float32, NAMES, False)
    whole = (photos / "b.png").read_bytes()
    (photos / "a" / "0.png").write_bytes(whole[: len(whole) // 2])  # a good header
    (photos / "bb.png").write_bytes(whole[: len(whole) // 2])
    (photos / "0.jpg").write_text("junk")
    again, paths, said = rows("bad")
    assert np.array_equal(again, features)
    assert paths == NAMES
    first = said.splitlines()[0]
    assert first == "3 of 7 images cannot be read and are left out: 0.jpg, a/0.png, bb.png"
    assert len(said.splitlines()) == 2
    for path in photos.rglob("*.png"):
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"no image of folder:.* can be read"):
        rows("none")
    assert not (tmp_path / "none.npy").exists()


def test_a_folder_of_train_and_test_has_classes(target, tmp_path, capsys):
    root = tmp_path / "sets"
    for i, name in enumerate(("cat/1", "cat/2", "dog/1")):
        picture(root / "train" / f"{name}.png", i)
        picture(root / "test" / f"{name}.png", 10 + i)
    for split in ("train", "test"):
        out = tmp_path / f"{split}.npz"
        argv = [target, "--data", f"folder:{root}", "--split", split, "--out", str(out)]
        assert embed.run(argv) == 0
        found = np.load(out)
        assert found["labels"].tolist() == [0, 0, 1]
        expected = [f"{split}/cat/1.png", f"{split}/cat/2.png", f"{split}/dog/1.png"]
        assert found["paths"].tolist() == expected
        assert np.array_equal(found["features"][2], alone(target, root / expected[2]))
        assert json.loads(str(found["about"]))["classes"] == ["cat", "dog"]
    with pytest.raises(ValueError, match="--split must be train or test, not 'val'"):
        embed.run([target, "--data", f"folder:{root}", "--split", "val", "--out", "x.npy"])


def test_several_labels_an_image(target, photos, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    labels = torch.tensor([[1, 0], [-1, 1], [0, 1]])
    (photos / "b.png").write_text("junk")
    paths = [photos / "a/1.png", photos / "b.png", photos / "c/d/3.png"]
    split = LabelledImages(paths, labels, ["x", "y"], 32)

    class Splits:
        train = split

    monkeypatch.setattr(embedded, "load_splits", lambda *_, **__: Splits)
    argv = [
        target,
        "--data",
        "voc2007",
        "--root",
        str(photos),
        "--out",
        str(tmp_path / "x.parquet"),
    ]
    assert embed.run(argv) == 0
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table["label"].to_pylist() == [[1, 0], [0, 1]]
    assert table["path"].to_pylist() == ["a/1.png", "c/d/3.png"]


def test_what_is_there_stays_unless_it_is_to_be_replaced(target, photos, tmp_path, monkeypatch):
    out = tmp_path / "x.npy"
    (tmp_path / "x.paths.txt").write_text("mine")
    argv = [target, "--data", f"folder:{photos}", "--out", str(out)]
    with pytest.raises(ValueError, match=r"x\.paths\.txt exists: give another --out"):
        embed.run(argv)
    out.write_text("old")
    with pytest.raises(ValueError, match=r"x\.npy exists: give another --out, or --overwrite"):
        embed.run(argv)

    def full(file, array):
        file.write(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match="no space"):
            embed.run([*argv, "--overwrite"])
    assert out.read_text() == "old"
    assert not list(tmp_path.glob(".*"))
    assert embed.run([*argv, "--overwrite"]) == 0
    assert np.load(out).shape == (4, 16)


def test_a_name_of_two_lines_or_of_no_text_is_one_line(target, tmp_path):
    folder = tmp_path / "odd"
    picture(folder / "x.png", 0)
    (folder / "x.png").rename(folder / "a\nb.png")
    picture(folder / "x.png", 0)
    (folder / "x.png").rename(folder / b"c\xff.png".decode(errors="surrogateescape"))
    assert embed.run([target, f"--data=folder:{folder}", f"--out={tmp_path}/x.npy"]) == 0
    lines = (tmp_path / "x.paths.txt").read_text().splitlines()
    assert lines == ["a\\nb.png", "c\\udcff.png"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--data", "shapes", "--out", "x.csv"], r"must end in \.parquet, \.npy, \.npz"),
        (["--data", "shapes", "--out", "/proc/version/x.npy"], "no folder to write in"),
        (["--data", "shapes", "--out", "x.npy", "--limit", "0"], "--limit must be at least 1"),
        (["--data", "shape", "--out", "x.npy"], "unknown data set 'shape'"),
        (["--data", "shapes", "--split", "val", "--out", "x.npy"], "unknown split of shapes 'val'"),
        (["--data", "folder:", "--out", "x.npy"], "DIR is missing"),
        (["--data", "folder:none", "--out", "x.npy"], "no such image folder: 'none'"),
        (["--data", "folder:run", "--split", "test", "--out", "x.npy"], "no train/ and test/"),
        (["--data", "shapes"], "--help"),
        (["--data", "shapes", "--out", "x.npy", "--devise", "cpu"], "--devise"),
        (["--data", "shapes", "--out", "run/x.npy", "--device", "x"], "--device x cannot be used"),
    ],
)
def test_bad_input(argv, said, target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        embed.run([target, *argv])
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *("backbone.json", "backbone.safetensors", "run")
    ]


def test_without_pyarrow_one_line_says_how_to_install_it(target, monkeypatch):
    monkeypatch.setattr(embed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs pyarrow, not installed: pip install"):
        embed.run([target, "--data", "shapes", "--out", "x.parquet"])
