"""A run folder: held by one process, never overwritten, resumed only as the run that it is."""

import json
import logging
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from filelock import FileLock, Timeout

from sslkit.cli.arguments import values
from sslkit.cli.config import PretrainCLI

# What a resumed run may change: where it runs, how long, and where its data lies.
FREE = ("wandb", "out", "name", "online_every", "compile")
FREE_DATA = ("root", "resident", "workers")
FIXED_TRAINER = (  # beside the number of processes
    *("accumulate_grad_batches", "callbacks", "gradient_clip_algorithm", "gradient_clip_val"),
    *("limit_train_batches", "overfit_batches", "precision", "sync_batchnorm"),
)
FORMAT = logging.Formatter("%(levelname)s: %(message)s")


def name_of(cli: PretrainCLI, argv: list[str]) -> str:
    """What a run is called: its --name, or its config's.

    Raises:
        ValueError: a path.
    """
    configs = values(argv, "--config")
    default = Path(configs[-1]).stem if configs else "run"
    name = default if cli.config.name is None else cli.config.name
    if not name or name != Path(name).name:
        raise ValueError(f"--name is a folder's name, not a path: {name!r}; --out says where")
    return name


def refuse_existing(run_dir: Path) -> None:
    """Raise ValueError where a run is already."""
    if run_dir.exists() and any(path.name != ".lock" for path in run_dir.iterdir()):
        raise ValueError(
            f"{run_dir} exists: go on with it by --resume {run_dir}, or give another --name"
        )


@contextmanager
def held(run_dir: Path, *, new: bool) -> Iterator[None]:
    """Keep other processes out of a run folder, which is made; a kill lets go of it.

    Raises:
        ValueError: another process is in it, or it is to be new and holds a run.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"{run_dir} is in use by another process") from None
    with lock:
        lock.release()  # the count of acquire, above
        if new:
            refuse_existing(run_dir)
        try:
            yield
        finally:
            if [path.name for path in run_dir.iterdir()] == [".lock"]:  # nothing began
                (run_dir / ".lock").unlink()
                run_dir.rmdir()


def check_resumed(
    trainer: pl.Trainer, run_dir: Path, config: dict[str, Any], checkpoint: dict[str, Any]
) -> None:
    """Raise ValueError where a resumed run has nothing to do, or would compute something else."""
    card = checkpoint["sslkit"]
    saved, changed = card["config"], []
    if trainer.world_size != card["world_size"]:
        now, then = trainer.world_size, card["world_size"]
        changed.append(f"trainer.devices (were {then} in all, are {now})")
    for key in sorted(config.keys() | saved.keys()):
        if key in FREE:
            continue
        now, then = config.get(key), saved.get(key)
        if key == "data":
            now, then = (
                {k: v for k, v in side.items() if k not in FREE_DATA} for side in (now, then)
            )
        if key == "trainer":
            now, then = ({k: side.get(k) for k in FIXED_TRAINER} for side in (now, then))
        if now != then:
            changed.append(f"{key} (was {then}, is {now})")
    if changed:
        raise ValueError(f"the checkpoint is of another configuration: {'; '.join(changed)}")
    if trainer.max_steps not in (None, -1):
        logging.getLogger("sslkit").warning(
            "with trainer.max_steps, Lightning goes on from the end of an epoch one batch into it: "
            "then this run is not repeated exactly; trainer.max_epochs is"
        )
    planned = saved["trainer"].get("max_epochs")
    done = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    exported = run_dir / "backbone.json"
    ended = exported.exists() and (run_dir / "report.html").exists()
    step = json.loads(exported.read_text()).get("step") if ended else None
    ends = (trainer.max_epochs, done), (trainer.max_steps, checkpoint["global_step"])
    over = any(most not in (None, -1) and most <= now for most, now in ends)
    cut = over and trainer.max_epochs != planned
    if cut or (over and step == checkpoint["global_step"]):  # else the end is still to be written
        raise ValueError(
            f"the run has done its {done} epochs, {checkpoint['global_step']} steps: "
            "--trainer.max_epochs N, with a larger N, goes on"
        )
    if trainer.max_epochs != planned:
        logging.getLogger("sslkit").warning(
            "the learning rate goes on along a schedule of %s epochs, where it began with %s",
            trainer.max_epochs,
            planned,
        )


def hold_log() -> MemoryHandler:
    """Warnings of sslkit go to the screen; all it says is held until the run has a folder."""
    logger = logging.getLogger("sslkit")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)
    screen.setFormatter(FORMAT)
    memory = MemoryHandler(10**9, flushLevel=logging.CRITICAL + 1)
    logger.addHandler(screen)
    logger.addHandler(memory)
    return memory


def log_to(path: Path, memory: MemoryHandler) -> None:
    """What was held, and whatever comes, goes to the run's log."""
    file = logging.FileHandler(path, delay=True)
    file.setFormatter(FORMAT)
    logger = logging.getLogger("sslkit")
    logger.removeHandler(memory)
    logger.addHandler(file)
    memory.setTarget(file)
    memory.close()


def commit() -> str | None:
    """The commit of sslkit's source, when it runs from a checkout."""
    package = Path(__file__).parents[1]
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
