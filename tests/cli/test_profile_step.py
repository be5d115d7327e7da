import contextlib
import io
import json
import os
import signal
import time
from types import SimpleNamespace

import pytest
from PIL import Image

from sslkit.callbacks.profile import PARTS
from sslkit.cli import STARTED, main
from sslkit.cli.help import help_of
from sslkit.methods import SimCLR

CONFIG = ["pretrain", "--config", "simclr_shapes", "--trainer.accelerator", "cpu"]
TINY = [
    *CONFIG,
    *("--model.backbone.width", "2", "--data.limit", "64", "--data.batch_size", "16"),
]
SIZES = ["--trainer.callbacks+=ProgressiveResizing", "--trainer.callbacks.sizes"]


def profiled(folder, *argv):
    """What a profile prints, and the files that it leaves."""
    out, error = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        code = main([*TINY, "--profile-step", "2", *argv])
    assert code == 0, error.getvalue()
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    (numbers,) = (json.loads((folder / path).read_text()) for path in files if "json" in path)
    return SimpleNamespace(
        folder=folder, out=out.getvalue(), err=error.getvalue(), files=files, numbers=numbers
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return profiled(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def resized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resized")
    return profiled(folder, *SIZES, "[8,16]", "--name", "small", "--out", "o/p")


def cells(text):
    """The table in what was printed, row by row."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    head, rule, *rows = rows
    assert head[1:] == [*PARTS, "step", "images/s"]
    assert rule == ["---", *["---:"] * (len(head) - 1)]
    return rows


def check_table(run, sizes, batch=16):
    """Every number that is printed follows from those in the file."""
    rows = cells(run.out)
    assert [row[0] for row in rows] == list(run.numbers["milliseconds"]) == sizes
    for (_, *shares, step, rate), parts in zip(
        rows, run.numbers["milliseconds"].values(), strict=True
    ):
        total = sum(parts.values())
        assert list(parts) == list(PARTS)
        assert min(parts.values()) > 0
        assert step == f"{total:.1f} ms"
        assert float(rate.replace(",", "")) == pytest.approx(1e3 * batch / total, abs=0.5)
        percent = [float(share.removesuffix(" %")) for share in shares]
        assert percent == pytest.approx([100 * ms / total for ms in parts.values()], abs=0.051)
        assert sum(percent) == pytest.approx(100, abs=0.05 * len(PARTS))


def test_a_profile_is_printed_kept_and_drawn_and_leaves_no_run(plain):
    check_table(plain, ["32 px"])
    first, *_, last = plain.out.splitlines()
    assert first == "simclr_shapes: 16 images a step, 32-true"
    seconds = plain.numbers["seconds to the first step"]
    assert last == f"first step done {seconds} s after the command"
    assert 0 < seconds < time.time() - STARTED
    assert plain.files == ["runs/simclr_shapes-step.json", "runs/simclr_shapes-step.png"]
    assert sorted(path.name for path in plain.folder.iterdir()) == ["runs"]
    assert all(path in plain.err for path in plain.files)
    picture = Image.open(plain.folder / plain.files[1])
    assert picture.format == "PNG"
    known = {
        "config": "simclr_shapes",
        "method": "SimCLR",
        "batch": 16,
        "precision": "32-true",
        "compiled": False,
        "steps": 2,
    }
    assert known.items() <= plain.numbers.items()


def test_each_size_of_views_has_a_row(resized):
    check_table(resized, ["8 px", "16 px", "32 px"])
    assert resized.files == ["o/p/small-step.json", "o/p/small-step.png"]
    assert resized.numbers["config"] == "small"
    assert resized.out.startswith("small: 16 images")


def test_it_is_repeated_over_what_is_there_and_a_run_may_follow(plain, capsys):
    with contextlib.chdir(plain.folder):
        assert main([*TINY, "--profile-step=1", "--data.batch_size", "8"]) == 0
    out = capsys.readouterr().out
    numbers = json.loads((plain.folder / plain.files[0]).read_text())
    again = SimpleNamespace(out=out, numbers=numbers)
    check_table(again, ["32 px"], batch=8)
    assert (numbers["steps"], numbers["batch"]) == (1, 8)
    assert not (plain.folder / "runs" / "simclr_shapes").exists()


NOT_STEPS = "--profile-step takes a number of steps, 1 or more, not "


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--profile-step", "0"], f"{NOT_STEPS}'0'"),
        (["--profile-step", "x"], f"{NOT_STEPS}'x'"),
        (["--profile-step", "-3"], f"{NOT_STEPS}'-3'"),
        (["--profile-step", "1.5"], f"{NOT_STEPS}'1.5'"),
        (["--profile-step=", "--name", "x"], f"{NOT_STEPS}''"),
        (["--profile-step"], f"{NOT_STEPS}''"),
        (["--profile-step", "1", "--profile-step", "0"], f"{NOT_STEPS}'0'"),
        (["--profile-step", "3", "--resume", "runs/x"], "times a new run: give --config, not"),
        (
            ["--profile-step", "3", "--trainer.accelerator", "cpu", "--trainer.devices", "2"],
            "--profile-step takes one process, not 2: add --trainer.devices 1",
        ),
        (["--profile-stp", "3"], "no option --profile-stp: did you mean --profile-step?"),
        (["--profile_step", "3"], "no option --profile_step: did you mean --profile-step?"),
        (["--profile-step", "3", "--name", "../b"], "a folder's name, not a path: '../b'"),
        (["--profile-step", "3", "--trainer.fast_dev_run", "true"], "out trainer.fast_dev_run"),
        (["--profile-step", "3", "--trainer.profiler", "simple"], "leave out trainer.profiler"),
        (["--profile-step", "3", "--trainer.limit_train_batches", "0"], "nothing to train on"),
        (["--profile-step", "3", "--trainer.accumulate_grad_batches", "2"], "steps of one batch"),
        (["--profile-step", "3", *SIZES, "[2]"], "ResNet9 cannot take views of 2 pixels"),
        (["--profile-step", "3", "--profil-step", "3"], "did you mean --profile-step?"),
        (["--profile-step", "3", "--data.bach_size", "3"], "did you mean --data.batch_size?"),
        (["--profile-step", "3", "--config", "simclr_shape"], "did you mean simclr_shapes?"),
        (["--profile-step", "3", "--trainer.accelerator", "x"], "'x'"),
        (["--profile-step", "3", "--data.limit", "9"], "9 images there are"),
        (["--profile-step", "3", "--data.batch_size", "1"], "needs at least 2 images a batch"),
        (
            ["--profile-step", "3", *SIZES, "[8,32]"],
            "takes sizes below the view's 32, not [8, 32]",
        ),
        (
            ["--profile-step", "3", *SIZES, "[8]", *SIZES, "[9]"],
            "ProgressiveResizing is 2 times among trainer.callbacks, which takes one",
        ),
        (["--profile-step", "3", *SIZES, "8"], "trainer.callbacks.sizes must be a list, not 8"),
        (["--profile-step", "3", *SIZES, "[8.5]"], "sizes must be a whole number, not 8.5"),
        (
            ["--profile-step", "3", SIZES[1], "[8]"],
            "no callback yet: put --trainer.",
        ),
        (
            ["--profile-step", "3", f"{SIZES[0]}s"],
            "(did you mean ProgressiveResizing?); choose",
        ),
        (["--profile-step", "3", *SIZES, "[]"], "one size or more of at least 1 pixel"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*CONFIG, *argv]) == 2
    out, error = capsys.readouterr()
    lines = [line for line in error.splitlines() if "images/s]" not in line]  # a bar that began
    assert out == ""
    assert len([line for line in lines if line.strip()]) == 1
    assert lines[-1].startswith("sslkit: error: ")
    assert said in lines[-1]
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_a_profile_without_a_trace(capsys, tmp_path, monkeypatch):
    objective = SimCLR.objective

    def pressed(method, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return objective(method, batch)

    monkeypatch.setattr(SimCLR, "objective", pressed)
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which nohup would ignore
    try:
        assert main([*TINY, "--profile-step", "3"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    out, error = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_the_help_says_what_it_leaves():
    (text,) = (line for line in help_of("pretrain").split("\n  --") if line.startswith("profile"))
    for word in ("OUT/NAME-step.png", ".json", "no run folder"):
        assert word in text
