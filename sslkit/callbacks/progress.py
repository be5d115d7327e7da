"""One progress bar for a whole run, with images per second and the time left; and their log."""

import math
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm


class Progress(ProgressBar):
    """A bar that counts the images of the run: rate and time left, loss and online kNN beside it.

    Without a terminal it prints a line every half minute instead of redrawing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: tqdm | None = None

    def disable(self) -> None:
        """Lightning calls this on every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._enabled:
            return
        batches = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
        batches = min(batches, trainer.num_training_batches * max(trainer.max_epochs or 1, 1))
        per_batch = trainer.train_dataloader.batch_size * trainer.world_size
        done = trainer.fit_loop.total_batch_idx + 1
        self._bar = tqdm(
            desc=type(pl_module).__name__,
            total=int(batches) * per_batch if math.isfinite(batches) else None,
            initial=done * per_batch,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
        )
        # Drawing reads the metrics, which waits for the device: twice a second is enough.
        self._bar.mininterval = 0.5 if self._bar.fp.isatty() else 30

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if self._bar is None:
            return
        n = trainer.train_dataloader.batch_size * trainer.world_size
        if self._bar.update(n):  # drawn just now; reading the metrics waits for the device
            metrics = self.get_metrics(trainer, pl_module)
            shown = {
                name.removeprefix("train/").removeprefix("online/"): f"{value:.3g}"
                for name, value in metrics.items()
                if isinstance(value, float)
            }
            self._bar.set_postfix({"epoch": trainer.current_epoch, **shown}, refresh=False)

    def on_exception(self, *_: Any) -> None:
        self.teardown()

    def teardown(self, *_: Any, **__: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Throughput(pl.Callback):
    """Logs ``images_per_second``: images of all processes over the time between two logged steps.

    Pauses between epochs (online signals, checkpoints) are left out. The logging interval is
    lowered to the length of an epoch, so that every epoch is logged, however short.
    """

    def __init__(self) -> None:
        self._images, self._started = 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        batches = max(trainer.num_training_batches // trainer.accumulate_grad_batches, 1)
        trainer.log_every_n_steps = min(trainer.log_every_n_steps, batches)
        self.on_train_epoch_start()  # which is left out when a run goes on within an epoch

    def on_train_epoch_start(self, *_: Any) -> None:
        self._images, self._started = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self._images += trainer.train_dataloader.batch_size * trainer.world_size
        if trainer.global_step % trainer.log_every_n_steps == 0:
            now = time.perf_counter()
            pl_module.log("images_per_second", self._images / (now - self._started))
            self._images, self._started = 0, now
