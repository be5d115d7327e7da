"""Guards: a loss that is not finite ends a run, and Ctrl-C ends it between two steps."""

import math
import signal
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch


class FiniteLoss(pl.Callback):
    """Ends training with a ValueError when the loss is NaN or infinite, before it is checkpointed.

    The loss is read, which waits for the device, when a step is logged and at an epoch's end.
    """

    def __init__(self) -> None:
        self._loss: torch.Tensor | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._loss = outputs["loss"]
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        if self._loss is not None and not math.isfinite(self._loss.item()):
            raise ValueError(
                f"the loss is {self._loss.item()} at step {trainer.global_step}: try a lower "
                "learning rate, a longer warm-up or float32; the last checkpoint is from before"
            )


class SafeInterrupt(pl.Callback):
    """On Ctrl-C: finish the step, save a checkpoint that resumes exactly, then stop.

    A second Ctrl-C stops at once, without saving.

    Args:
        path: where the checkpoint goes.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._asked = False
        self._previous: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._asked = False
        self._previous = signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._asked:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
