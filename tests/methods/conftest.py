import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from sslkit.data import DataModule


class Recorder(Callback):
    """Keeps the losses, and saves a checkpoint after one step."""

    def __init__(self, stop=None, path=None):
        self.values, self.stop, self.path = [], stop, path

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.values.append(outputs["loss"].item())
        if trainer.global_step == self.stop:
            trainer.save_checkpoint(self.path)


@pytest.fixture
def resumed_like_new(tmp_path):
    """Train on the embedded set; go on from a checkpoint of mid-epoch: the losses must agree.

    Called with what makes the method, and options of the data module; returns both methods after
    training.
    """

    def fit(make, recorder, options, ckpt_path=None):
        pl.seed_everything(3, verbose=False)
        method = make()
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[recorder],
        )
        data = DataModule("shapes", **{"limit": 64, "batch_size": 16, **options})
        trainer.fit(method, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return method

    def check(make, **options):
        path = tmp_path / "middle.ckpt"
        whole, tail = Recorder(3, path), Recorder()
        methods = fit(make, whole, options), fit(make, tail, options, path)
        assert tail.values == whole.values[3:]
        for a, b in zip(*(m.state_dict().items() for m in methods), strict=True):
            assert a[0] == b[0]
            assert torch.equal(a[1], b[1]), a[0]
        return methods

    return check
