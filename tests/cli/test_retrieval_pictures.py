"""The pictures that ``sslkit evaluate --protocol retrieval`` draws beside its scores."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from sslkit.backbones import ResNet9
from sslkit.cli import main
from sslkit.evaluation.cache import cached_features as own
from sslkit.training import export_backbone

ARGV = ["evaluate", "a", "random", "--data", "classes:birds", "--protocol", "retrieval"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder, and a set of eight classes, the last four to test with."""
    monkeypatch.chdir(tmp_path)
    for name in "abcdefgh":
        (tmp_path / "birds" / name).mkdir(parents=True)
        for i in range(4):
            image = Image.effect_noise((16, 16), 20 * (ord(name) - 96) + i)
            image.save(tmp_path / "birds" / name / f"{i}.png")
    weights(0)
    return tmp_path / "a"


def weights(seed):
    torch.manual_seed(seed)
    card = {"size": 16, "normalize": "half", "step": seed, "method": "SimCLR"}
    export_backbone(ResNet9(4), "a/backbone.safetensors", card)


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


PAIR = ["-embedding.png", "-retrieval.png"]


def test_every_score_has_its_two_pictures(run):
    assert main(ARGV) == 0
    stems = ("classes_birds", "classes_birds-random")
    first = pictures(run / "evaluation")
    assert sorted(first) == sorted(f"{stem}{end}" for stem in stems for end in PAIR)
    with Image.open(run / "evaluation" / "classes_birds-retrieval.png") as sheet:
        assert sheet.width == 3 * 8 + 9 * (128 + 8 + 8)
        assert sheet.height == 24 + 8 + 4 * (128 + 8 + 8 + 20)  # of four classes
    page = (run / "report.html").read_text()
    assert page.count("Test images of birds (weights: trained)") == 2
    assert page.count("Test images of birds (weights: random)") == 2


def test_of_a_budget_a_layer_and_a_folder_of_ones_own(run, tmp_path):
    assert main([*ARGV, "--limit", "9", "--layer", "stem"]) == 0
    stems = ("classes_birds-limit9-stem", "classes_birds-limit9-stem-random")
    names = sorted(f"{stem}{end}" for stem in stems for end in PAIR)
    assert sorted(pictures(run / "evaluation")) == names
    assert "Test images" not in (run / "report.html").read_text()  # a page has no room for layers
    assert main([*ARGV, "--out", "o"]) == 0
    stems = ("a-classes_birds", "a-random-classes_birds")
    names = sorted(f"{stem}{end}" for stem in stems for end in PAIR)
    assert sorted(pictures(tmp_path / "o")) == names


def test_other_protocols_draw_none(run):
    assert main(["evaluate", "a", "--data", "shapes", "--limit", "300", "--protocol", "knn"]) == 0
    assert pictures(run / "evaluation") == {}


def test_of_a_score_that_is_there_they_are_drawn_where_they_are_missing(run, capsys, monkeypatch):
    assert main([*ARGV, "--cache", "c"]) == 0
    first = pictures(run / "evaluation")
    there = run / "evaluation" / "classes_birds-random-embedding.png"
    there.write_bytes(b"mine")
    (run / "evaluation" / "classes_birds-retrieval.png").unlink()
    (run / "evaluation" / "classes_birds-embedding.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(ResNet9, "forward", lambda *_: pytest.fail("extracted again"))
        capsys.readouterr()
        assert main(ARGV) == 0
        said = "not drawn beside a/evaluation/classes_birds.json: classes_birds-retrieval.png, "
        said += "classes_birds-embedding.png; its features were not kept, --again draws all"
        assert capsys.readouterr().err.count(said) == 1
        assert len(pictures(run / "evaluation")) == 2
        assert main([*ARGV, "--cache", "c"]) == 0
    assert there.read_bytes() == b"mine"
    assert pictures(run / "evaluation") == first | {there.name: b"mine"}
    assert main([*ARGV, "--again"]) == 0
    assert pictures(run / "evaluation") == first


def test_the_same_run_by_another_path_keeps_its_score(run):
    assert main(ARGV) == 0
    first = pictures(run / "evaluation")
    assert main(["evaluate", f"{run}/", *ARGV[2:]]) == 0
    assert pictures(run / "evaluation") == first
    assert not (run / "evaluation" / "earlier").exists()


def test_no_training_image_is_extracted_for_them(run, monkeypatch):
    monkeypatch.setattr(
        "sslkit.evaluation.shared_features.cached_features",
        lambda *args, **options: (
            pytest.fail("extracted")
            if options["about"]["split"] == "train"
            else own(*args, **options)
        ),
    )
    assert main(ARGV) == 0
    assert len(pictures(run / "evaluation")) == 4


def test_pictures_of_earlier_weights_go_with_their_score(run):
    assert main(ARGV) == 0
    first = pictures(run / "evaluation")
    for seed, name in ((1, "classes_birds"), (2, "classes_birds-2")):
        before = pictures(run / "evaluation")
        weights(seed)
        assert main(ARGV) == 0
        aside = pictures(run / "evaluation" / "earlier")
        assert len(aside) == 2 * seed
        now = pictures(run / "evaluation")
        for end in PAIR:
            assert (
                aside[f"{name}{end}"] == before[f"classes_birds{end}"] != now[f"classes_birds{end}"]
            )
    assert now["classes_birds-random-retrieval.png"] == first["classes_birds-random-retrieval.png"]


def test_a_move_that_was_stopped_is_finished_the_next_time(run, monkeypatch):
    assert main(ARGV) == 0
    score = run / "evaluation" / "classes_birds.json"
    before = pictures(run / "evaluation"), score.read_bytes()
    weights(1)
    rename = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "rename",
            lambda path, to: (
                (_ for _ in ()).throw(PermissionError("not allowed"))
                if path.name == "classes_birds-embedding.png"
                else rename(path, to)
            ),
        )
        assert main(ARGV) != 0
    assert score.read_bytes() == before[1]
    assert main(ARGV) == 0
    aside = run / "evaluation" / "earlier"
    assert (aside / score.name).read_bytes() == before[1]
    for end in PAIR:
        assert (aside / f"classes_birds{end}").read_bytes() == before[0][f"classes_birds{end}"]


def test_they_are_shown_on_the_dashboard(run, monkeypatch):
    from sslkit.cli import evaluate

    shown = []
    monkeypatch.setattr(
        evaluate, "log_evaluation", lambda *args: shown.append([p.name for p in args[2]])
    )
    assert main(ARGV) == 0
    assert main(ARGV) == 0
    assert shown == [["classes_birds-retrieval.png", "classes_birds-embedding.png"], []]


def test_a_picture_that_cannot_be_drawn_leaves_the_score(run, capsys, monkeypatch):
    monkeypatch.setattr(
        "sslkit.dashboard.retrieval_pictures.retrieval_sheet",
        lambda *_: (_ for _ in ()).throw(OSError("birds/1.png is gone")),
    )
    assert main(ARGV) == 0
    said = "no pictures beside a/evaluation/classes_birds.json: birds/1.png is gone"
    assert said in capsys.readouterr().err
    assert (run / "evaluation" / "classes_birds.json").exists()
    assert (run / "evaluation" / "classes_birds-random.json").exists()
