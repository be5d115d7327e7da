import numpy as np
import pytest
import torch
from PIL import Image

from sslkit.backbones import ResNet9
from sslkit.cli import embed, embedded, neighbours
from sslkit.dashboard.sheets import AGREES, DIFFERS, UNKNOWN
from sslkit.data import LabelledImages
from sslkit.data.cropped import Cropped
from sslkit.training import export_backbone


@pytest.fixture
def target(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "run" / "backbone.safetensors"
    export_backbone(ResNet9(2), path, {"size": 32, "normalize": "half", "step": 4})
    return str(path)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(6):
        low, high = sorted(generator.integers(0, 256, 2))
        pixels = generator.integers(low, high + 1, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def colours(path):
    with Image.open(path) as sheet:
        found = sheet.convert("RGB").getcolors(1 << 24)
    return {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in found} & {AGREES, DIFFERS, UNKNOWN}


def rows(text):
    """{query: [(neighbour, cosine), ...]} of what is printed."""
    found = {}
    for line in text.splitlines():
        query, name, cosine = line.split("\t")
        found.setdefault(query, []).append((name, float(cosine)))
    return found


def cosines(target, photos, tmp_path):
    """float64, by the features that embed writes."""
    out = tmp_path / "features.npy"
    embed.run([target, "--data", f"folder:{photos}", "--out", str(out)])
    features = np.load(out).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features @ features.T


def test_neighbours_are_the_nearest_but_itself(target, photos, tmp_path, capsys):
    expected = cosines(target, photos, tmp_path)
    out = tmp_path / "n.png"
    argv = [target, "--data", f"folder:{photos}", "--k", "3", "--out", str(out)]
    assert neighbours.run(argv) == 0
    said = capsys.readouterr()
    assert said.err.endswith(f"neighbours: {out}\n")
    found = rows(said.out)
    assert sorted(found) == [f"{i}.png" for i in range(6)]
    for query, near in found.items():
        i = int(query[0])
        others = sorted((expected[i, j] for j in range(6) if j != i), reverse=True)
        assert len(near) == 3
        assert query not in dict(near)
        for rank, (name, cosine) in enumerate(near):
            assert cosine == pytest.approx(expected[i, int(name[0])], abs=6e-4)
            assert cosine == pytest.approx(others[rank], abs=6e-4)
    assert colours(out) == {UNKNOWN}
    with Image.open(out) as sheet:
        assert sheet.width == 3 * 8 + 4 * (128 + 8 + 8)


def test_queries_by_name_by_path_and_from_outside(target, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    twin = tmp_path / "elsewhere.png"
    twin.write_bytes((photos / "3.png").read_bytes())
    argv = [target, "--data", "folder:photos", "--k", "5", "--queries", "2.png", "photos/4.png"]
    assert neighbours.run([*argv, "elsewhere.png", "--out", "n.jpg"]) == 0
    found = rows(capsys.readouterr().out)
    assert list(found) == ["2.png", "4.png", "elsewhere.png"]
    assert {name for name, _ in found["2.png"]} == {f"{i}.png" for i in (0, 1, 3, 4, 5)}
    assert "4.png" not in dict(found["4.png"])
    assert found["elsewhere.png"][0] == ("3.png", 1.0)  # an image of the set, not itself
    with pytest.raises(ValueError, match=r"--queries 9\.png: no image of the set, no file"):
        neighbours.run([*argv, "9.png", "--out", "m.png"])
    assert not (tmp_path / "m.png").exists()


def test_a_query_of_a_cropped_set_is_cropped(target, photos, tmp_path, monkeypatch, capsys):
    paths = sorted(photos.glob("*.png"))
    cropped = Cropped(paths, [(5, 5, 30 + i, 20) for i in range(6)])
    twin = tmp_path / "twin.png"
    twin.write_bytes(paths[3].read_bytes())

    class Splits:
        train = LabelledImages(cropped, torch.zeros(6, dtype=torch.int64), ["x"], 32)

    Splits.train.paths = paths
    monkeypatch.setattr(embedded, "load_splits", lambda *_, **__: Splits)

    def found(*queries):
        argv = [target, "--data", "cub200_cropped", "--root", str(photos), "--k", "5", "--queries"]
        out = ["--out", str(tmp_path / "n.png"), "--overwrite"]
        assert neighbours.run([*argv, *queries, *out]) == 0
        return rows(capsys.readouterr().out), Image.open(tmp_path / "n.png").tobytes()

    expected, picture = found("6")
    given, same = found(*expected)
    assert given == expected
    assert same == picture
    whole = found(str(twin))[0][str(twin)]
    assert dict(whole)["3.png"] < 0.999  # beside its own box
    assert {name: near for name, near in whole if name != "3.png"} != dict(expected["3.png"])


def test_frames_say_whether_the_classes_agree(target, photos, tmp_path, monkeypatch):
    paths = sorted(photos.glob("*.png"))

    def frames(labels, queries):
        class Splits:
            train = LabelledImages(paths, torch.tensor(labels), ["x", "y", "z"], 32)

        monkeypatch.setattr(embedded, "load_splits", lambda *_, **__: Splits)
        argv = [target, "--data", "dtd", "--root", str(photos), "--queries", queries]
        out = tmp_path / "n.png"
        assert neighbours.run([*argv, "--k", "5", "--out", str(out), "--overwrite"]) == 0
        return colours(out) - {UNKNOWN}

    assert frames([0, 0, 0, 0, 0, 0], "1") == {AGREES}
    assert frames([1, 0, 0, 0, 0, 0], "0.png") == {DIFFERS}
    assert frames([1, 0, 0, 0, 0, 1], "0.png") == {AGREES, DIFFERS}
    # Of several labels an image one in common is enough; -1 is neither.
    several = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [-1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert frames(several, "0.png") == {AGREES, DIFFERS}
    assert frames([[1, 0, 0], *several[2:], [0, 1, 0]], "0.png") == {DIFFERS}


def test_a_set_in_memory(target, tmp_path, capsys):
    argv = [target, "--data", "shapes", "--limit", "40", "--queries", "3", "--k", "39"]
    assert neighbours.run([*argv, "--out", str(tmp_path / "n.png")]) == 0
    found = rows(capsys.readouterr().out)
    for query, near in found.items():
        assert {name for name, _ in near} == {str(i) for i in range(40)} - {query}
    assert colours(tmp_path / "n.png") >= {AGREES, DIFFERS}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--k", "6"], "--k 6 is above 5, the other images of folder:photos"),
        (["--k", "0"], "--k must be 1 to 64, not 0"),
        (["--queries", "0"], "--queries must be 1 to 64, not 0"),
        (["--queries", "65"], "--queries must be 1 to 64, not 65"),
        (["--k", "x"], "k must be a whole number"),
        (["--out", "n.gif"], r"--out must end in \.png"),
        (["--out", "photos"], r"--out must end in \.png"),
        (["--out", "photos/0.png"], r"photos/0\.png exists: give another --out, or --overwrite"),
    ],
)
def test_bad_input(argv, said, target, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=said):
        neighbours.run([target, "--data", "folder:photos", *argv])
    assert sorted(tmp_path.rglob("*")) == before
