"""A backbone that is compiled for its training steps."""

from typing import Any

import pytorch_lightning as pl
import torch


class CompiledBackbone(pl.Callback):
    """Compiles the backbone by ``torch.compile``, for training steps.

    The module stays what it was, and the names of its weights with it. What comes between epochs
    (online signals, pictures) runs as it is written: it has other batches, and each would be
    compiled anew.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.backbone.compile(dynamic=False)

    def on_train_epoch_start(self, *_: Any) -> None:
        torch.compiler.set_stance("default")

    def on_train_epoch_end(self, *_: Any) -> None:
        torch.compiler.set_stance("force_eager")

    def on_exception(self, *_: Any) -> None:
        self.teardown()

    def teardown(self, *_: Any, **__: Any) -> None:
        torch.compiler.set_stance("default")
