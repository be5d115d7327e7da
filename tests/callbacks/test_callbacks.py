import logging
import math
import os
import signal

import pytest
import pytorch_lightning as pl
import torch

from sslkit.backbones import ResNet9
from sslkit.callbacks import FiniteLoss, OnlineSignals, SafeInterrupt
from sslkit.callbacks.online import collapsed
from sslkit.dashboard import CSVLogger, read_metrics
from sslkit.data import DataModule
from sslkit.evaluation import Features, extract, knn
from sslkit.methods import SimCLR
from sslkit.training import Optimizer, read_checkpoint
from sslkit.views import SimCLRViews


def parts(limit=60):
    torch.manual_seed(0)
    view = SimCLRViews(32, blur=False, normalize="half")
    data = DataModule("shapes", limit=limit, batch_size=20)
    data.setup("fit")
    return SimCLR(ResNet9(4), view, Optimizer(warmup_epochs=0)), data


def trainer(tmp_path, *callbacks, **options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        **options,
    )


def test_online_knn_is_knn_of_training_images_on_each_other():
    method, data = parts()
    signals = OnlineSignals(bank=40, queries=20).measure(method, data.dataset)
    x, y = extract(method.backbone, data.dataset, method.eval_view)
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    test, bank = (Features(x[r], y[r]) for r in (rows[:20], rows[20:]))
    assert signals["knn"] == pytest.approx(knn(bank, test, ks=(20,))["accuracy"])
    assert set(signals) == {"knn", "feature_std", "rankme", "uniformity", "alignment"}


def test_online_signals_disturb_nothing():
    method, data = parts()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    state = torch.get_rng_state()
    OnlineSignals(bank=40, queries=20).measure(method.train(), data.dataset)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert all(module.training for module in method.modules())


def test_no_knn_without_labels():
    method, data = parts()
    data.dataset.labels = None
    assert "knn" not in OnlineSignals(bank=40, queries=20).measure(method, data.dataset)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_collapse_is_warned_of(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sslkit"), "propagate", True)
    method, data = parts()
    for parameter in method.backbone.parameters():
        torch.nn.init.zeros_(parameter)
    method.backbone.stage3[2].block[1][1].bias.data.fill_(1.0)  # one constant for every image
    for parameter in method.backbone.parameters():
        parameter.requires_grad_(False)
    trainer(tmp_path, OnlineSignals(bank=40, queries=20), max_epochs=1).fit(method, datamodule=data)
    assert "the features collapse" in caplog.text
    assert "lower learning rate" in caplog.text


def test_collapse_thresholds():
    healthy = {"feature_std": 0.06, "rankme": 4.7}  # what random weights have
    assert not collapsed(healthy)
    assert collapsed({**healthy, "feature_std": 0.01})
    assert collapsed({**healthy, "rankme": 1.2})


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    method, data = parts()
    method.objective = lambda batch: {"loss": method.backbone(batch.views[0]).sum() * math.nan}
    with pytest.raises(ValueError, match="the loss is nan at step 1: try a lower learning rate"):
        trainer(tmp_path, FiniteLoss(), max_epochs=1, log_every_n_steps=1).fit(
            method, datamodule=data
        )


@pytest.mark.parametrize("options", [{"every_n_epochs": -1}, {"bank": 0}, {"queries": 1}])
def test_bad_input(options):
    with pytest.raises(ValueError, match="OnlineSignals takes"):
        OnlineSignals(**options)


class Ask(pl.Callback):
    """Sends a signal to this process after some batch."""

    def __init__(self, number, batch):
        self.number, self.batch = number, batch

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_a_whole_step_that_is_logged(tmp_path, number):
    method, data = parts(limit=200)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    guarded = trainer(
        tmp_path,
        Ask(number, 4),  # the first of two accumulated batches
        SafeInterrupt(tmp_path / "last.ckpt"),
        max_epochs=2,
        accumulate_grad_batches=2,
        log_every_n_steps=1,
    )
    table = CSVLogger(tmp_path)
    guarded.loggers = [table]
    with pytest.raises(SystemExit):
        guarded.fit(method, datamodule=data)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 3
    table.flush()
    assert read_metrics(table.path)["train/loss"][0] == [0, 1, 2]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_signal_handlers_are_given_back_after_an_error(tmp_path):
    method, data = parts()
    method.objective = lambda batch: {"loss": method.backbone(batch.views[0]).sum() * math.nan}
    before = signal.getsignal(signal.SIGINT)
    guards = [FiniteLoss(), SafeInterrupt(tmp_path / "last.ckpt")]
    with pytest.raises(ValueError, match="no checkpoint holds it"):
        trainer(tmp_path, *guards, max_epochs=1, log_every_n_steps=1).fit(method, datamodule=data)
    assert signal.getsignal(signal.SIGINT) == before
