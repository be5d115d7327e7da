"""``sslkit pretrain``: a config, a run folder, training, and the backbone it leaves."""

import logging
import subprocess
import sys
import warnings
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from sslkit.callbacks import FiniteLoss, OnlineSignals, Progress, SafeInterrupt, Throughput
from sslkit.cli.config import (
    PretrainCLI,
    config_names,
    parse,
    values,
    with_config_files,
    without,
)
from sslkit.dashboard import CSVLogger, PictureSheets, wandb_logger, write_report
from sslkit.training import (
    AtomicCheckpointIO,
    export_backbone,
    read_checkpoint,
    write_atomically,
)

HELP = """\
usage: sslkit pretrain --config NAME_OR_FILE [--name NAME] [options]
       sslkit pretrain --resume RUN [--trainer.max_epochs N]

Train a backbone. The run folder is OUT/NAME and is never overwritten.

  --config C        a config file, or one of: {configs}
  --name NAME       the run's name (default: the config's)
  --out OUT         where run folders are (default: runs)
  --resume RUN      go on with a run folder from its last checkpoint
  --wandb MODE      auto, online, offline or disabled (default: auto)
  --online_every N  epochs between online signals; 0 for none (default: 1)

Anything in the config is an option too, for example:
  --data.root DIR   --data.batch_size N   --data.name cifar10
  --model.temperature 0.2   --model.backbone.name resnet50   --model.optimizer.lr 0.5
  --trainer.max_epochs N   --trainer.accelerator gpu   --trainer.devices 8
  --trainer.precision bf16-mixed   --trainer.accumulate_grad_batches N

  --print_config    print the whole configuration and stop
  --help_all        every option there is"""

FORMAT = logging.Formatter("%(levelname)s: %(message)s")

# What a resumed run may change: where it runs, how long, and where its data lies.
FREE = ("wandb", "out", "name", "online_every")
FREE_DATA = ("root", "resident", "workers")
FIXED_TRAINER = (  # beside the number of processes
    *("accumulate_grad_batches", "gradient_clip_algorithm", "gradient_clip_val"),
    *("limit_train_batches", "overfit_batches", "precision"),
)


def run(argv: list[str]) -> int:
    """Train; returns the exit code."""
    if not argv or "--help" in argv or "-h" in argv:
        print(HELP.format(configs=", ".join(config_names())))
        return 0
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 under torch 2.14; nothing that a user could mend.
    warnings.filterwarnings("ignore", "`isinstance\\(treespec", FutureWarning)
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", "It is recommended to use `self.log\\('online/")
    if resumed := values(argv, "--resume"):
        run_dir = Path(resumed[-1])
        return pretrain(_resumed(argv, run_dir), run_dir, resume=True)
    argv = with_config_files(argv)
    cli = parse(["--help" if arg == "--help_all" else arg for arg in argv])
    configs = values(argv, "--config")
    name = cli.config.name or (Path(configs[-1]).stem if configs else "run")
    if name != Path(name).name:
        raise ValueError(f"--name is a folder's name, not a path: {name!r}; --out says where")
    run_dir = Path(cli.config.out) / name
    if rank_zero_only.rank == 0 and run_dir.exists() and any(run_dir.iterdir()):
        raise ValueError(
            f"{run_dir} exists: go on with it by --resume {run_dir}, or give another --name"
        )
    return pretrain(cli, run_dir)


def pretrain(cli: PretrainCLI, run_dir: Path, *, resume: bool = False) -> int:
    """Fit into a run folder, then leave ``backbone.safetensors`` and ``report.html`` there.

    Every process of a distributed run comes here; the first alone writes.
    """
    method, data, config = cli.model, cli.datamodule, cli.plain()
    last = run_dir / "checkpoints" / "last.ckpt"
    checkpoint = read_checkpoint(last) if resume and last.exists() else None
    method.config = config
    if data.batch_size < method.min_batch_size:
        raise ValueError(
            f"data.batch_size {data.batch_size} is too small: {type(method).__name__} needs at "
            f"least {method.min_batch_size} images a batch"
        )
    # Whatever is wrong with the trainer or the data is said before there is a folder.
    trainer = _trainer(cli, last)
    if checkpoint:
        _same(config, trainer.world_size, checkpoint["sslkit"])
    trainer.loggers = [CSVLogger(run_dir)]
    board = None
    if rank_zero_only.rank == 0:
        held = _log()
        _warn_of_slow_precision(trainer)
        data.setup("fit")
        write_atomically(run_dir / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
        _log_to(run_dir / "sslkit.log", held)
        if resume:
            trainer.loggers[0].resume_at(checkpoint["global_step"] if checkpoint else -1)
        board = wandb_logger(run_dir, mode=cli.config.wandb, name=run_dir.name, config=config)
        trainer.loggers = [*trainer.loggers, board] if board else trainer.loggers
        print(f"run folder: {run_dir}", file=sys.stderr)
    try:
        path = last if checkpoint else None
        trainer.fit(method, datamodule=data, ckpt_path=path, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        print(f"\nstopped; go on with: sslkit pretrain --resume {run_dir}", file=sys.stderr)
        return 130
    if trainer.is_global_zero:
        card = {
            **method.card(),
            "data": data.name,
            "step": trainer.global_step,
            "commit": _commit(),
        }
        export_backbone(method.backbone, run_dir / "backbone.safetensors", card)
        print(f"backbone: {run_dir / 'backbone.safetensors'}", file=sys.stderr)
        print(f"report: {write_report(run_dir)}", file=sys.stderr)
    if board:
        board.experiment.finish()
    return 0


def _trainer(cli: PretrainCLI, last: Path) -> pl.Trainer:
    """The trainer as configured, with a run's own callbacks and plugin behind the user's."""
    given = cli.config_init.trainer
    if given.logger not in (None, True):
        raise ValueError("a run has its own loggers: leave out trainer.logger; --wandb chooses")
    callbacks = [
        *_listed(given.callbacks),
        Progress(),
        Throughput(),
        FiniteLoss(),
        OnlineSignals(cli.config.online_every),
        PictureSheets(last.parents[1]),
        SafeInterrupt(last),
        ModelCheckpoint(last.parent, last.stem, enable_version_counter=False),
    ]
    try:
        return cli.instantiate_trainer(
            logger=False,
            callbacks=callbacks,
            plugins=[*_listed(given.plugins), AtomicCheckpointIO()],
            default_root_dir=last.parents[1],
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]


def _warn_of_slow_precision(trainer: pl.Trainer) -> None:
    on_cpu = trainer.strategy.root_device.type == "cpu"
    if (
        on_cpu
        and "bf16" in str(trainer.precision)
        and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    ):
        logging.getLogger("sslkit").warning(
            "precision %s is emulated on this processor, ten times slower than 32-true",
            trainer.precision,
        )


def _resumed(argv: list[str], run_dir: Path) -> PretrainCLI:
    config = run_dir / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"no run folder to resume at {run_dir}: it has no config.yaml")
    kept = ("--model", "--config", "--name", "--out")
    fixed = [arg.partition("=")[0] for arg in argv if arg.startswith(kept)]
    if fixed:
        raise ValueError(
            f"a resumed run keeps what it computes: leave out {', '.join(fixed)}, or start a new "
            f"run with --config {config}"
        )
    return parse(["--config", str(config), *without(argv, "--resume")])


def _same(config: dict[str, Any], world_size: int, card: dict[str, Any]) -> None:
    """Raise ValueError where a resumed run would compute something else than its checkpoint did."""
    saved, changed = card["config"], []
    if world_size != card["world_size"]:
        changed.append(f"trainer.devices (were {card['world_size']} in all, are {world_size})")
    for key in sorted(config.keys() | saved.keys()):
        if key in FREE:
            continue
        now, then = config.get(key), saved.get(key)
        if key == "data":
            now = {k: v for k, v in now.items() if k not in FREE_DATA}
            then = {k: v for k, v in then.items() if k not in FREE_DATA}
        if key == "trainer":
            now, then = ({k: side.get(k) for k in FIXED_TRAINER} for side in (now, then))
        if now != then:
            changed.append(f"{key} (was {then}, is {now})")
    if changed:
        raise ValueError(f"the checkpoint is of another configuration: {'; '.join(changed)}")


def _log() -> MemoryHandler:
    """Warnings of sslkit go to the screen; all it says is held until the run has a folder."""
    logger = logging.getLogger("sslkit")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)
    screen.setFormatter(FORMAT)
    held = MemoryHandler(10**9, flushLevel=logging.CRITICAL + 1)
    logger.addHandler(screen)
    logger.addHandler(held)
    return held


def _log_to(path: Path, held: MemoryHandler) -> None:
    """What was held, and whatever comes, goes to the run's log."""
    file = logging.FileHandler(path, delay=True)
    file.setFormatter(FORMAT)
    logger = logging.getLogger("sslkit")
    logger.removeHandler(held)
    logger.addHandler(file)
    held.setTarget(file)
    held.close()


def _commit() -> str | None:
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
