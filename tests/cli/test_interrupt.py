"""A run that is stopped in mid-epoch, politely or not, goes on from its last checkpoint."""

import csv
import shutil
import signal
import subprocess
import sys
import time

import pytest

ARGS = [
    *("pretrain", "--config", "simclr_shapes", "--wandb", "disabled", "--online_every", "0"),
    *("--model.backbone.width", "4", "--data.limit", "640", "--data.batch_size", "16"),
    *("--trainer.max_epochs", "50", "--trainer.log_every_n_steps", "1"),
]


def sslkit(tmp_path, *argv):
    command = [sys.executable, "-m", "sslkit", *argv]
    return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)


def steps(tmp_path):
    path = tmp_path / "runs" / "simclr_shapes" / "metrics.csv"
    if not path.exists():
        return []
    return [int(row["step"]) for row in csv.DictReader(path.open()) if row["step"]]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stop_and_resume(tmp_path, how):
    process = sslkit(tmp_path, *ARGS)
    last = tmp_path / "runs" / "simclr_shapes" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not (last.exists() and steps(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    before = len(steps(tmp_path))
    assert before > 1
    run = "runs/simclr_shapes"
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert f"go on with: sslkit pretrain --resume {run}" in said
        assert "Traceback" not in said
    again = sslkit(tmp_path, "pretrain", "--resume", run, "--trainer.max_time", "00:00:00:08")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    numbers = steps(tmp_path)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > before
    assert (tmp_path / run / "backbone.safetensors").exists()


def test_killed_before_the_first_checkpoint_it_starts_over(tmp_path):
    process = sslkit(tmp_path, *ARGS[:-4], "--trainer.max_epochs", "2", *ARGS[-2:])
    deadline = time.monotonic() + 120
    while not steps(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    run = tmp_path / "runs" / "simclr_shapes"
    shutil.rmtree(run / "checkpoints", ignore_errors=True)  # had it come that far
    again = sslkit(tmp_path, "pretrain", "--resume", str(run), "--trainer.max_epochs", "2")
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "no checkpoint was saved yet: starting over" in said
    assert steps(tmp_path) == list(range(80))
