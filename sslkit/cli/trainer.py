"""The trainer of a configuration, with what a command adds."""

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from sslkit.callbacks import ProgressiveResizing
from sslkit.cli.config import PretrainCLI
from sslkit.methods.base import Method


def trainer_of(cli: PretrainCLI, callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    """The trainer as configured, with a command's own callbacks behind the user's.

    Raises:
        ValueError: a trainer that would train nothing or never end, or an option not valid.
    """
    given = cli.config_init.trainer
    if given.limit_train_batches == 0:
        raise ValueError("trainer.limit_train_batches 0 leaves nothing to train on")
    if given.max_epochs == given.max_steps == -1:
        raise ValueError("the schedule needs an end: set trainer.max_epochs or max_steps")
    if 0 in (given.max_epochs, given.max_steps):
        option = "max_epochs" if given.max_epochs == 0 else "max_steps"
        raise ValueError(f"trainer.{option} 0 leaves nothing to train: it must be 1 or more")
    if given.logger not in (None, True):
        raise ValueError("a run has its own loggers: leave out trainer.logger; --wandb chooses")
    try:
        return cli.instantiate_trainer(
            logger=False,
            callbacks=[*listed(given.callbacks), *callbacks],
            enable_model_summary=False,
            use_distributed_sampler=False,
            **options,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ValueError(f"trainer: {error}") from error


def checked_resizing(callbacks: Iterable[Any], method: Method) -> ProgressiveResizing | None:
    """The ``ProgressiveResizing`` among callbacks, if there is one.

    Raises:
        ValueError: there are several, or it does not suit the method.
    """
    found = [callback for callback in callbacks if isinstance(callback, ProgressiveResizing)]
    if len(found) > 1:
        raise ValueError(
            f"ProgressiveResizing is {len(found)} times among trainer.callbacks, which takes one: "
            "the config has one already, or it was given twice"
        )
    for callback in found:
        callback.check(method)
    return found[0] if found else None


def listed(given: Any) -> list[Any]:
    """What a config gives once, several times or not."""
    return given if isinstance(given, list) else [] if given is None else [given]
