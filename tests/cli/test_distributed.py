"""Two processes, started by the command line, train one run in one folder."""

import csv
import os
import subprocess
import sys

import pytest
import torch

from sslkit.training import read_checkpoint

ARGS = [
    *("pretrain", "--config", "simclr_shapes", "--wandb", "disabled"),
    *("--model.backbone.width", "4", "--data.limit", "128", "--data.batch_size", "16"),
    *("--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"),
    *("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"),
]


def sslkit(tmp_path, *argv):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sslkit", *argv]
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180
    )


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_train_one_run_and_resume_as_two(tmp_path):
    done = sslkit(tmp_path, *ARGS)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "simclr_shapes"
    assert (run / "backbone.safetensors").exists()
    card = read_checkpoint(run / "checkpoints" / "last.ckpt")["sslkit"]
    assert card["world_size"] == 2
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert len(rows) == 4  # 128 images in steps of 2 x 16
    config = (run / "config.yaml").read_text()
    alone = sslkit(tmp_path, "pretrain", "--resume", str(run), "--trainer.devices", "1")
    assert alone.returncode == 2
    assert "trainer.devices (were 2 in all, are 1)" in alone.stderr
    assert (run / "config.yaml").read_text() == config
    again = sslkit(tmp_path, "pretrain", "--resume", str(run), "--trainer.max_epochs", "2")
    assert again.returncode == 0, again.stderr
