import csv
import math
import os

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from sslkit.dashboard import CSVLogger, read_metrics


def table(path):
    """An independent reader: the csv module, nothing of ours."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_late_columns_keep_the_earlier_rows(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"b/loss": 1.5, "epoch": 0}, step=0)
    logger.flush()
    logger.log_metrics({"a, knn": torch.tensor(30.0), "epoch": 0}, step=5)
    logger.finalize("success")
    rows = table(logger.path)
    assert list(rows[0]) == ["step", "epoch", "b/loss", "a, knn"]
    assert [list(row.values()) for row in rows] == [["0", "0", "1.5", ""], ["5", "0", "", "30"]]
    assert os.listdir(tmp_path) == ["metrics.csv"]


@pytest.mark.parametrize("flush_between", [True, False])
def test_one_row_a_step(tmp_path, flush_between):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"x": 1, "y": 123456.0}, step=3)
    logger.log_metrics({"x": 2, "y": 123456.0}, step=4)
    if flush_between:
        logger.flush()
    logger.log_metrics({"y": 7}, step=4)
    logger.log_metrics({"x": 3}, step=5)
    logger.flush()
    assert [(r["step"], r["x"], r["y"]) for r in table(logger.path)] == [
        ("3", "1", "123456"),
        ("4", "2", "7"),
        ("5", "3", ""),
    ]


def test_a_shorter_row_leaves_nothing_of_the_longer_one(tmp_path):
    logger = CSVLogger(tmp_path)
    for value in (0.123456789, 7):
        logger.log_metrics({"x": value}, step=0)
        logger.flush()
    assert logger.path.read_text() == "step,epoch,x\n0,,7\n"


def test_float32_is_exact_and_nan_is_nan(tmp_path):
    values = np.random.default_rng(0).normal(size=200).astype(np.float32)
    logger = CSVLogger(tmp_path, flush_rows=7)
    for step, value in enumerate([*values, math.nan, math.inf]):
        logger.log_metrics({"v": value}, step=step)
        logger.save()
    logger.flush()
    assert ",nan\n" in logger.path.read_text()
    steps, read = read_metrics(logger.path)["v"]
    assert steps == list(range(202))
    assert np.array_equal(np.float32(read[:200]), values)
    assert math.isnan(read[200])
    assert read[201] == math.inf


def test_rows_reach_the_disk_by_number_and_by_time(tmp_path):
    by_number = CSVLogger(tmp_path / "n", flush_rows=3, flush_seconds=1e9)
    by_time = CSVLogger(tmp_path / "t", flush_rows=1000, flush_seconds=0)
    for step in range(4):
        for logger in (by_number, by_time):
            logger.log_metrics({"x": 0.0}, step=step)
            logger.save()
    assert len(table(by_number.path)) == 3
    assert len(table(by_time.path)) == 4


def test_resume_drops_later_rows_and_a_cut_line(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,epoch,x\n0,0,0\n4,0,4\n5,1,5\n9,1,9\n10,1,1")
    logger = CSVLogger(tmp_path)
    logger.resume_at(5)
    assert [row["step"] for row in table(logger.path)] == ["0", "4", "5"]
    logger.log_metrics({"x": 50, "epoch": 1}, step=5)
    logger.log_metrics({"x": 60, "epoch": 1}, step=6)
    logger.flush()
    assert read_metrics(logger.path)["x"] == ([0, 4, 5, 6], [0, 4, 50, 60])


def test_a_new_logger_appends_after_a_cut_line(tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"step,epoch,x\n0,0,0.5\n1,0,0.\n2,0,0.2")
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"x": 9.0}, None)
    logger.flush()
    assert read_metrics(logger.path)["x"] == ([0, 1, 2], [0.5, 0.0, 9.0])


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="flush_rows must be at least 1, not 0"):
        CSVLogger(tmp_path, flush_rows=0)
    with pytest.raises(ValueError, match="could not convert"):
        CSVLogger(tmp_path).log_metrics({"x": "word"}, step=0)


class Line(pl.LightningModule):
    def __init__(self, die_at=None):
        super().__init__()
        self.layer, self.die_at = torch.nn.Linear(1, 1), die_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.die_at:
            raise KeyboardInterrupt
        self.log("train/step", float(self.global_step))
        return self.layer(batch).mean()

    def on_train_epoch_end(self):
        self.log("online/epoch", float(self.current_epoch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.zeros(5, 1))


def fit(folder, model, **kwargs):
    logger = CSVLogger(folder)
    saver = ModelCheckpoint(folder / "checkpoints", save_last=True)
    if "ckpt_path" in kwargs:
        logger.resume_at(torch.load(kwargs["ckpt_path"], weights_only=True)["global_step"])
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=logger,
        callbacks=[saver],
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, **kwargs)
    return trainer


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_killed_and_resumed_fit_logs_what_a_whole_one_does(tmp_path):
    whole = fit(tmp_path / "whole", Line())
    assert whole.log_dir == str(tmp_path / "whole")
    with pytest.raises(SystemExit):  # Lightning turns the interrupt into an exit
        fit(tmp_path / "cut", Line(die_at=13))
    assert len(table(tmp_path / "cut" / "metrics.csv")) == 13
    fit(tmp_path / "cut", Line(), ckpt_path=tmp_path / "cut" / "checkpoints" / "last.ckpt")
    metrics = read_metrics(tmp_path / "whole" / "metrics.csv")
    assert metrics["train/step"] == (list(range(20)), list(range(20)))
    assert metrics["online/epoch"] == ([4, 9, 14, 19], [0, 1, 2, 3])
    assert read_metrics(tmp_path / "cut" / "metrics.csv") == metrics
