"""Golden losses: 20 steps of every method from a fixed seed, as they were when they last moved.

`python tests/methods/test_golden.py` writes them anew; the commit then says why they moved.
"""

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from sslkit.backbones import ResNet9
from sslkit.data import DataModule
from sslkit.methods import SimCLR
from sslkit.training import Optimizer
from sslkit.views import SimCLRViews

GOLDEN = Path(__file__).with_name("golden.json")
METHODS = {
    "SimCLR": lambda optimizer: SimCLR(
        ResNet9(4), SimCLRViews(32, jitter=0.5, normalize="half"), optimizer
    ),
}


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.values.append(round(outputs["loss"].item(), 7))


def losses(name):
    pl.seed_everything(0, verbose=False)
    method = METHODS[name](Optimizer(name="sgd", lr=0.0003, warmup_epochs=1))
    kept = Losses()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[kept],
    )
    trainer.fit(method, datamodule=DataModule("shapes", limit=160, batch_size=16))
    return kept.values


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", METHODS)
def test_losses_are_the_golden_ones(name):
    assert losses(name) == pytest.approx(json.loads(GOLDEN.read_text())[name], abs=1e-3)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: losses(name) for name in METHODS}, indent=1) + "\n")
