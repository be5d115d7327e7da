"""``sslkit pretrain``: a config, a run folder, training, and the backbone it leaves."""

import logging
import subprocess
import sys
import warnings
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from sslkit.callbacks import FiniteLoss, OnlineSignals, Progress, SafeInterrupt, Throughput
from sslkit.cli.config import PretrainCLI, config_names, find_config, parse
from sslkit.dashboard import CSVLogger, PictureSheets, wandb_logger, write_report
from sslkit.training import export_backbone, read_checkpoint, write_text

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

# What a resumed run may change: where it runs and where its data lies, not what it computes.
FREE = ("trainer", "wandb", "out", "name", "online_every")
FREE_DATA = ("root", "resident", "workers")


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
    options = dict(_options(argv))
    if "--resume" in options:
        run_dir = Path(options["--resume"])
        return pretrain(*_resumed(argv, options, run_dir), resume=True)
    argv = _with_config_file(argv, options)
    cli = parse(["--help" if arg == "--help_all" else arg for arg in argv])
    default = Path(options["--config"]).stem if "--config" in options else "run"
    name = cli.config.name or default
    if name != Path(name).name:
        raise ValueError(f"--name is a folder's name, not a path: {name!r}; --out says where")
    run_dir = Path(cli.config.out) / name
    if run_dir.exists() and any(run_dir.iterdir()):
        raise ValueError(
            f"{run_dir} exists: go on with it by --resume {run_dir}, or give another --name"
        )
    return pretrain(cli, run_dir)


def pretrain(cli: PretrainCLI, run_dir: Path, *, resume: bool = False) -> int:
    """Fit into a run folder, then leave ``backbone.safetensors`` and ``report.html`` there."""
    method, data, config = cli.model, cli.datamodule, cli.plain()
    last = run_dir / "checkpoints" / "last.ckpt"
    checkpoint = read_checkpoint(last) if resume and last.exists() else None
    if checkpoint:
        _same(config, checkpoint["sslkit"]["config"])
    method.config = config
    if data.batch_size < method.min_batch_size:
        raise ValueError(
            f"data.batch_size {data.batch_size} is too small: {type(method).__name__} needs at "
            f"least {method.min_batch_size} images a batch"
        )
    # Whatever is wrong with the trainer or the data is said before there is a folder.
    trainer = _trainer(cli, last)
    held = _log()
    data.prepare_data()
    data.setup("fit")
    run_dir.mkdir(parents=True, exist_ok=True)
    write_text(run_dir / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    _log_to(run_dir / "sslkit.log", held)
    table = CSVLogger(run_dir)
    if checkpoint:
        table.resume_at(checkpoint["global_step"])
    board = wandb_logger(run_dir, mode=cli.config.wandb, name=run_dir.name, config=config)
    trainer.loggers = [table, board] if board else [table]
    print(f"run folder: {run_dir}", file=sys.stderr)
    try:
        trainer.fit(
            method,
            datamodule=data,
            ckpt_path=last if checkpoint else None,
            weights_only=True,
        )
    except SystemExit:  # Lightning's answer to Ctrl-C
        print(f"\nstopped; go on with: sslkit pretrain --resume {run_dir}", file=sys.stderr)
        return 130
    if trainer.is_global_zero:
        card = {**method.card(), "data": data.name, "commit": _commit()}
        export_backbone(method.backbone, run_dir / "backbone.safetensors", card)
        print(f"backbone: {run_dir / 'backbone.safetensors'}", file=sys.stderr)
        print(f"report: {write_report(run_dir)}", file=sys.stderr)
        if board:
            board.experiment.finish()
    return 0


def _trainer(cli: PretrainCLI, last: Path) -> pl.Trainer:
    saver = ModelCheckpoint(last.parent, last.stem, enable_version_counter=False)
    callbacks = [
        Progress(),
        Throughput(),
        FiniteLoss(),
        OnlineSignals(cli.config.online_every),
        PictureSheets(last.parents[1]),
        SafeInterrupt(last),
        saver,
    ]
    try:
        return cli.instantiate_trainer(
            logger=False,
            callbacks=callbacks,
            default_root_dir=last.parents[1],
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except MisconfigurationException as error:
        raise ValueError(str(error)) from None


def _options(argv: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for i, arg in enumerate(argv):
        if arg.startswith("--"):
            key, equals, value = arg.partition("=")
            following = argv[i + 1] if i + 1 < len(argv) else ""
            pairs.append((key, value if equals else following))
    return pairs


def _with_config_file(argv: list[str], options: dict[str, str]) -> list[str]:
    """The arguments with a config's short name turned into its file."""
    if "--config" not in options:
        return argv
    given, path = options["--config"], str(find_config(options["--config"]))
    return [
        path
        if arg == given and i and argv[i - 1] == "--config"
        else arg.replace(f"--config={given}", f"--config={path}")
        for i, arg in enumerate(argv)
    ]


def _resumed(argv: list[str], options: dict[str, str], run_dir: Path) -> tuple[PretrainCLI, Path]:
    config = run_dir / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"no run folder to resume at {run_dir}: it has no config.yaml")
    fixed = [key for key in options if key.startswith(("--model", "--config", "--name", "--out"))]
    if fixed:
        raise ValueError(
            f"a resumed run keeps what it computes: leave out {', '.join(fixed)}, or start a new "
            f"run with --config {config}"
        )
    rest = [arg for arg in argv if not arg.startswith("--resume")]
    if f"--resume={run_dir}" not in argv:
        rest.remove(options["--resume"])
    return parse(["--config", str(config), *rest]), run_dir


def _same(config: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raise ValueError where a resumed run would compute something else than its checkpoint did."""
    changed = []
    for key in sorted(config.keys() | saved.keys()):
        if key in FREE:
            continue
        now, then = config.get(key), saved.get(key)
        if key == "data":
            now = {k: v for k, v in now.items() if k not in FREE_DATA}
            then = {k: v for k, v in then.items() if k not in FREE_DATA}
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
