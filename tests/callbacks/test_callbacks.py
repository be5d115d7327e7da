import logging
import math

import pytest
import pytorch_lightning as pl
import torch

from sslkit.backbones import ResNet9
from sslkit.callbacks import FiniteLoss, OnlineSignals
from sslkit.callbacks.online import collapsed
from sslkit.data import DataModule
from sslkit.evaluation import Features, extract, knn
from sslkit.methods import SimCLR
from sslkit.training import Optimizer
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
