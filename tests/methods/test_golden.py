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
from sslkit.losses import TripletMarginLoss
from sslkit.methods import (
    DAML,
    Colorization,
    InstanceDiscrimination,
    Jigsaw,
    MetricLearning,
    MoCo,
    RelativePosition,
    Rotation,
    SimCLR,
    Supervised,
)
from sslkit.training import Optimizer
from sslkit.views import (
    ColorizationView,
    InstDiscView,
    JigsawView,
    MoCoV2Views,
    RelativePositionView,
    RotationView,
    SimCLRViews,
    SupervisedView,
)

GOLDEN = Path(__file__).with_name("golden.json")
HALF = {"normalize": "half"}
PATCHES = {"patch": 8, "gap": 2, "jitter": 1, "pairs": 2, **HALF}
TILES = {"tile": 8, "cell": 10, "permutations": 24, **HALF}
METHODS = {
    "Rotation": lambda b, o: Rotation(b, RotationView(32, **HALF), o),
    "RelativePosition": lambda b, o: RelativePosition(
        b, RelativePositionView(32, **PATCHES), o, hidden_dim=16
    ),
    "Jigsaw": lambda b, o: Jigsaw(b, JigsawView(32, **TILES), o, hidden_dim=16, fused_dim=32),
    "Colorization": lambda b, o: Colorization(b, ColorizationView(32, **HALF), o, hidden_dim=8),
    "InstanceDiscrimination": lambda b, o: InstanceDiscrimination(b, InstDiscView(32, **HALF), o),
    "MoCo": lambda b, o: MoCo(b, MoCoV2Views(32, **HALF), o, queue_size=64, splits=2),
    "SimCLR": lambda b, o: SimCLR(b, SimCLRViews(32, jitter=0.5, **HALF), o),
    "MetricLearning": lambda b, o: MetricLearning(
        b, SupervisedView(32, **HALF), o, loss=TripletMarginLoss(), embedding_dim=16
    ),
    "DAML": lambda b, o: DAML(
        b, SupervisedView(32, **HALF), o, loss=TripletMarginLoss(), embedding_dim=16
    ),
    "Supervised": lambda b, o: Supervised(b, SupervisedView(32, **HALF), o, classes=10),
}


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.values.append(round(outputs["loss"].item(), 7))


def losses(name):
    pl.seed_everything(0, verbose=False)
    method = METHODS[name](ResNet9(4), Optimizer(name="sgd", lr=0.0003, warmup_epochs=1))
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
