"""Guards: a loss that is not finite ends a run, and a signal ends it between two steps."""

import math
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch


class FiniteLoss(pl.Callback):
    """Ends training with a ValueError when the loss is NaN or infinite, before it is checkpointed.

    The loss is read, which waits for the device, when a step is logged or saved and at an
    epoch's end.
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

    def on_save_checkpoint(self, trainer: pl.Trainer, *_: Any) -> None:
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        if self._loss is not None and not math.isfinite(self._loss.item()):
            raise ValueError(
                f"the loss is {self._loss.item()} at step {trainer.global_step}: try a lower "
                "learning rate, a longer warm-up or float32; no checkpoint holds it"
            )


class SafeInterrupt(pl.Callback):
    """On Ctrl-C or SIGTERM: finish the step, save a checkpoint that resumes exactly, then stop.

    A second signal stops at once, without saving. Over several processes the step is one that is
    logged, where all of them agree on it.

    Args:
        path: where the checkpoint goes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._asked = self._saved = False
        self._step = 0
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._asked = self._saved = False
        self._step = trainer.global_step
        for number in (signal.SIGINT, signal.SIGTERM):  # over Lightning's, set just before
            self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self._step:  # gradients of half a step are in no checkpoint
            return
        self._step = trainer.global_step
        if trainer.is_last_batch:  # the epoch is whole when it is saved at its end
            return
        if trainer.world_size > 1 and self._step % trainer.log_every_n_steps:
            return
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            trainer.save_checkpoint(self.path)
            self._saved = True

    # Lightning logs a step after on_train_batch_end: the run stops only then.
    def on_train_batch_start(self, *_: Any) -> None:
        if self._saved:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not self._saved and trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            trainer.save_checkpoint(self.path)
            self._saved = True
        if self._saved:
            raise KeyboardInterrupt

    def on_exception(self, *_: Any) -> None:
        self._restore()

    def teardown(self, *_: Any, **__: Any) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
