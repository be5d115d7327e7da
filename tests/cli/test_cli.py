import subprocess
import sys
import time

import pytest
from PIL import Image

from sslkit.cli import main


def answer(capsys, *argv):
    """The exit code and what is said on stderr."""
    code = main(list(argv))
    return code, capsys.readouterr().err.strip()


def test_help_is_quick_and_light():
    code = "import sslkit.cli, sys; sslkit.cli.main(['--help']); print('torch' in sys.modules)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 10
    assert done.stdout.strip().endswith("False")
    assert "pretrain" in done.stdout


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["train"], "no command 'train'; choose from pretrain, evaluate, demo"),
        (["pretrain", "--config", "simclr_shape"], "did you mean simclr_shapes?"),
        (
            ["pretrain", "--config", "simclr_shapes", "--model.temperatur", "1"],
            "no option 'temperatur' (did you mean temperature?)",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--model.temperature", "-1"],
            "temperature must be a finite number above 0, not -1.0",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--data.batch_size", "1"],
            "needs at least 2 images a batch",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--data.bach_size", "1"],
            "did you mean --data.batch_size?",
        ),
        (["pretrain", "--config", "simclr_folder", "--data.root", "nowhere"], "nowhere"),
        (["pretrain", "--config", "simclr_shapes", "--model", "BYOL"], "would drop"),
        (["pretrain", "--config", "simclr_shapes", "--trainer.accelerator", "gpu"], "gpu"),
        (["pretrain", "--resume", "runs/none"], "no run folder to resume at runs/none"),
        (["evaluate", "runs/none", "--data", "shapes"], "no run folder"),
        (["evaluate", "random"], "data"),
        (["evaluate", "random", "--data", "shapes", "--protocol", "svm"], "choose from knn"),
        (["evaluate", "nonsense", "--data", "shapes"], "no target 'nonsense'"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, error = answer(capsys, *argv)
    last = error.splitlines()[-1]
    assert code == 2
    assert last.startswith("sslkit: error: ")
    assert said in last
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


SMALL = ["--model.backbone.width", "4", "--data.limit", "64", "--data.batch_size", "16"]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_pretrain_evaluate_resume(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wandb = ["--wandb", "disabled"]
    argv = ["pretrain", "--config", "simclr_shapes", "--trainer.max_epochs", "1", *SMALL, *wandb]
    assert main(argv) == 0
    run = tmp_path / "runs" / "simclr_shapes"
    there = {path.name for path in run.iterdir()}
    assert there >= {
        "backbone.json",
        "backbone.safetensors",
        "checkpoints",
        "config.yaml",
        "metrics.csv",
        "pictures",
        "report.html",
    }
    code, error = answer(capsys, *argv)
    assert (code, "--resume" in error) == (2, True)
    code, error = answer(capsys, "pretrain", "--resume", str(run), "--model.temperature", "0.1")
    assert (code, "--model.temperature" in error) == (2, True)
    assert main(["pretrain", "--resume", str(run), "--trainer.max_epochs", "2"]) == 0
    argv = ["evaluate", str(run), "random", "--data", "shapes", "--limit", "100"]
    assert main(argv) == 0
    assert "| random | shapes |" in capsys.readouterr().out
    assert len(list((run / "evaluation").glob("*.json"))) == 2


def test_damaged_images_are_named_in_the_runs_log(tmp_path, capsys):
    for i in range(4):
        Image.new("RGB", (40, 40), (60 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.jpg").write_text("junk")
    (tmp_path / "empty.png").touch()
    argv = ["--config", "simclr_folder", "--data.root", str(tmp_path), "--data.size", "32"]
    argv += ["--data.batch_size", "4", "--model.view.size", "32", "--trainer.max_epochs", "1"]
    argv += ["--wandb", "disabled", "--out", str(tmp_path / "runs"), "--online_every", "0"]
    code, said = answer(capsys, "pretrain", *argv, "--trainer.log_every_n_steps", "1")
    assert code == 0
    assert "left out 2 of 6 images" in said
    log = (tmp_path / "runs" / "simclr_folder" / "sslkit.log").read_text()
    assert "left out 'bad.jpg': not an image" in log
    assert "left out 'empty.png': empty file" in log
