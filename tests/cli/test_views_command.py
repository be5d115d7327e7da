import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageColor

from sslkit.cli import main
from sslkit.cli.help import help_of
from sslkit.dashboard import views_sheet
from sslkit.dashboard.picture_sheets import sample
from sslkit.data import load
from sslkit.views import DINOViews, SimCLRViews

SHAPES = ["--config", "simclr_shapes", "--data.limit", "30"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLKIT_DATA", str(tmp_path / "data"))
    return tmp_path


def views(*argv):
    """The picture, once ``sslkit views`` has drawn it, as an array (h, w, 3)."""
    out = argv[argv.index("--out") + 1] if "--out" in argv else "views.png"
    assert main(["views", *argv]) == 0
    return np.asarray(Image.open(out).convert("RGB"))


def drawn(view, n=8, seed=0):
    """The picture that should be there."""
    images = load("shapes", limit=30).images[sample(30, n)]
    made = [view.denormalize(batch) for batch in view.manual_seed(seed)(images)]
    return np.asarray(views_sheet(images, made, rows=n, captions=view.captions()))


def test_the_originals_the_views_and_what_was_drawn(place, capsys):
    picture = views(*SHAPES)
    assert capsys.readouterr().err.strip() == "views: views.png"
    assert [path.name for path in place.iterdir()] == ["views.png"]
    images = load("shapes", limit=30).images[sample(30, 8)]
    y = 32
    original = images[0].permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1)
    assert np.array_equal(picture[y : y + 96, 8 : 8 + 96], original)
    caption = picture[y + 98 : y + 111, 8 + 104 : 8 + 200]
    assert (caption == ImageColor.getrgb("#1b1b1f")).all(-1).any()
    view = SimCLRViews(
        32, scale=(0.2, 1.0), jitter=0.5, grayscale=0.5, blur=False, normalize="half"
    )
    assert np.array_equal(picture, drawn(view))


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(place):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "3")):
        torch.rand(5)
        views(*SHAPES, "--out", f"{name}.png", "--seed_everything", seed)
    a, b, c = ((place / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    pictures = [np.asarray(Image.open(f"{name}.png")) for name in "ac"]
    assert np.array_equal(*(picture[32:128, 8:104] for picture in pictures))  # the same image


def test_options_hold_as_in_pretrain(place):
    dino = ["--model.view", "DINOViews", "--model.view.local_size", "48", "--seed_everything", "3"]
    view = DINOViews(32, local_size=48, normalize="half")
    picture = views(*SHAPES, *dino, "--images", "2", "--out", "new/folder/dino.png")
    assert np.array_equal(picture, drawn(view, 2, seed=3))
    config = yaml.safe_load("{out: runs, name: x, data: {name: shapes, limit: 3}, model: {}}")
    config["model"] = {
        "class_path": "SimCLR",
        "init_args": {
            "backbone": {"class_path": "ResNet9", "init_args": {"width": 4}},
            "view": {"class_path": "SupervisedView", "init_args": {"size": 32}},
        },
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))  # as a run folder has one
    picture = views("--config", "config.yaml", "--images", "8")
    assert picture.shape[1] < 250  # one column of views, and no more rows than images
    assert not (place / "runs").exists()


def test_a_folder_of_photos_decodes_no_more_than_it_draws(place, caplog):
    (place / "photos").mkdir()
    for i in range(12):
        Image.new("RGB", (60, 40), (20 * i, 90, 200 - 10 * i)).save(f"photos/{i:02}.png")
    (place / "photos" / "bad.jpg").write_text("junk")
    for i in set(range(12)) - set(sample(12, 2).tolist()):  # a good header alone
        content = (place / "photos" / f"{i:02}.png").read_bytes()
        (place / "photos" / f"{i:02}.png").write_bytes(content[:60])
    argv = ["--config", "simclr_folder", "--data.root", "photos/", "--data.size", "32"]
    picture = views(*argv, "--model.view.size", "32", "--images", "2")
    said = caplog.text
    assert "left out 1 of 13 images" in said
    assert "next readable" not in said
    first = int(sample(12, 2)[0])
    assert picture[80, 56].tolist() == [20 * first, 90, 200 - 10 * first]


@pytest.mark.parametrize(
    ("name", "kind"), [("v.JPG", "JPEG"), ("v.jpeg", "JPEG"), ("v.webp", "WEBP")]
)
def test_the_suffix_is_the_format_and_nothing_is_replaced_unasked(name, kind, capsys, place):
    argv = [*SHAPES, "--images", "1", "--out", name]
    views(*argv)
    before = (place / name).read_bytes()
    assert Image.open(name).format == kind
    assert main(["views", *argv, "--seed_everything", "1"]) == 2
    assert f"{name} exists: give another --out, or --overwrite" in capsys.readouterr().err
    assert (place / name).read_bytes() == before
    views(*argv, "--seed_everything", "1", "--overwrite")
    assert (place / name).read_bytes() != before


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--images", "3"], "--config is missing: give a file, or one of colorization_cifar10_cpu"),
        (["--config"], "--config is missing"),
        (["--config", "simclr_shape"], "did you mean simclr_shapes?"),
        ([*SHAPES, "--images", "0"], "--images must be 1 to 256, not 0"),
        ([*SHAPES, "--images", "x"], "invalid int value: 'x'"),
        ([*SHAPES, "--out", "v.gif"], "must end in .png, .jpg, .jpeg, .webp, not 'v.gif'"),
        ([*SHAPES, "--out", "dir.png"], "--out dir.png is a folder"),
        ([*SHAPES, "--out", "/proc/x/v.png"], "--out /proc/x/v.png cannot be written: No such"),
        ([*SHAPES, "--image", "3"], "no option --image: did you mean --images?"),
        ([*SHAPES, "--foo", "3"], "no option --foo; --help_all lists what there is"),
        ([*SHAPES, "--resume", "runs/x"], "--config RUN/config.yaml"),
        ([*SHAPES, "--model.view.jitter", "9"], "jitter must be between 0 and 2.5, not 9.0"),
        (
            ["--config", "simclr_folder", "--data.root", "nowhere"],
            "no such image folder: 'nowhere'",
        ),
        ([*SHAPES, "--data.name", "cifar11"], "unknown data set 'cifar11': choose from cifar10"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(argv, said, capsys, place):
    (place / "dir.png").mkdir()
    assert main(["views", *argv]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("sslkit: error: ")
    assert "\n" not in error
    assert said in error
    assert [path.name for path in place.iterdir()] == ["dir.png"]


def test_a_picture_too_large_for_its_format(monkeypatch, capsys, place):
    monkeypatch.setattr(
        "sslkit.cli.views.sheet_of", lambda *_: Image.new("RGB", (2, 16400), "white")
    )
    assert main(["views", *SHAPES, "--out", "v.webp"]) == 2
    error = capsys.readouterr().err
    assert "2 x 16400 pixels do not go into v.webp" in error
    assert not list(place.iterdir())


def test_help_is_listed_and_quick(capsys):
    assert main(["--help"]) == 0
    assert "  views " in capsys.readouterr().out
    for argv in (["views"], ["views", "--help"]):
        assert main(argv) == 0
        assert capsys.readouterr().out.strip() == help_of("views")
    for option in ("--config", "--out", "--images", "--overwrite"):
        assert option in help_of("views")
    code = "import sslkit.cli, sys; sslkit.cli.main(['views', '-h']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
