"""``sslkit pretrain``: a config, a run folder, training, and the backbone it leaves."""

import json
import logging
import shlex
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from sslkit.backbones import Embedder, describe
from sslkit.callbacks import (
    CompiledBackbone,
    FiniteLoss,
    OnlineSignals,
    Progress,
    SafeInterrupt,
    Throughput,
)
from sslkit.cli import profile_step
from sslkit.cli.arguments import values, with_config_files, without
from sslkit.cli.config import PretrainCLI, parse
from sslkit.cli.run_folder import (
    check_resumed,
    commit,
    held,
    hold_log,
    log_to,
    name_of,
    refuse_existing,
)
from sslkit.cli.targets import load_target
from sslkit.cli.trainer import checked_resizing, listed, trainer_of
from sslkit.dashboard import CSVLogger, PictureSheets, wandb_logger, write_report
from sslkit.methods import Method
from sslkit.training import (
    AtomicCheckpointIO,
    export_backbone,
    keep_freed_memory,
    read_checkpoint,
    write_atomically,
)
from sslkit.views import EvaluationView


def run(argv: list[str]) -> int:
    """Train; returns the exit code."""
    # Lightning's, of nothing that a user could mend.
    warnings.filterwarnings("ignore", "`isinstance\\(treespec", FutureWarning)
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", "It is recommended to use `self.log\\('online/")
    warnings.filterwarnings("ignore", "The number of training batches")
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
    warnings.filterwarnings("ignore", "Found \\d+ module\\(s\\) in eval mode")
    keep_freed_memory()
    if values(argv, "--profile-step"):
        return profile_step.run(argv)
    if resumed := values(argv, "--resume"):
        run_dir = Path(resumed[-1])
        return pretrain(_resumed(argv, run_dir), run_dir, resume=True)
    argv = with_config_files(argv)
    cli = parse(argv)
    run_dir = Path(cli.config.out) / name_of(cli, argv)
    if rank_zero_only.rank == 0:
        refuse_existing(run_dir)
    return pretrain(cli, run_dir)


def pretrain(cli: PretrainCLI, run_dir: Path, *, resume: bool = False) -> int:
    """Fit into a run folder, then leave ``backbone.safetensors`` and ``report.html`` there.

    Every process of a distributed run comes here; the first alone checks the data and writes.
    """
    method, data, method.config = cli.model, cli.datamodule, cli.plain()
    last = run_dir / "checkpoints" / "last.ckpt"
    first = rank_zero_only.rank == 0
    trainer = _trainer(cli, last)
    trainer.loggers = [CSVLogger(run_dir)]
    with ExitStack() as stack:
        if first:
            memory = hold_log()
        if first and resume:
            stack.enter_context(held(run_dir, new=False))
        checkpoint = read_checkpoint(last) if resume and last.exists() else None
        if checkpoint:
            check_resumed(trainer, run_dir, method.config, checkpoint)
        if cli.config.start is not None and not checkpoint:
            start_from(cli.config.start, method)
        if first:
            # Whatever is wrong with the data is said before there is a folder.
            data.setup("fit")
            data.order(world_size=trainer.world_size)
            method.take(data, trainer.world_size)
            checked_resizing(trainer.callbacks, method)
            warmup, epochs = method.optimizer.warmup_epochs, trainer.max_epochs
            if epochs and 1 < epochs <= warmup:
                logging.getLogger("sslkit").warning(
                    "a warm-up of %g epochs takes the whole run of %d: the learning rate only "
                    "rises; lower model.optimizer.warmup_epochs",
                    *(warmup, epochs),
                )
            if not resume:
                stack.enter_context(held(run_dir, new=True))
            _begin(cli, trainer, run_dir, checkpoint)
            log_to(run_dir / "sslkit.log", memory)
            if resume and not checkpoint:
                print("no checkpoint was saved yet: starting over", file=sys.stderr)
        try:
            path = last if checkpoint else None
            trainer.fit(method, datamodule=data, ckpt_path=path, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            if first:
                command = shlex.join(["sslkit", "pretrain", "--resume", str(run_dir)])
                print(f"\nstopped; go on with: {command}", file=sys.stderr)
            return 130
        if trainer.is_global_zero:
            card = {"data": data.name, "step": trainer.global_step, "commit": commit()}
            weights = run_dir / "backbone.safetensors"
            export_backbone(method.backbone, weights, {**method.card(), **card})
            print(f"backbone: {weights}\nreport: {write_report(run_dir)}", file=sys.stderr)
        for board in trainer.loggers[1:]:
            board.experiment.finish()
    return 0


def start_from(target: str, method: Method) -> None:
    """Give a method the weights of a target, as ``load_target`` takes it.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: there is no such target, or it is of another architecture.
    """
    if target in ("", "random"):
        raise ValueError(f"--start takes a target that was trained, not {target!r}")
    backbone, card = load_target(target)
    broken = [name for name, value in backbone.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"--start {target}: {broken[0]} holds NaN or infinity")
    try:
        method.start_from(backbone)
    except ValueError as error:
        raise ValueError(f"--start {target}: {error}") from error
    logger = logging.getLogger("sslkit")
    if isinstance(backbone, Embedder) and describe(backbone) != describe(method.backbone):
        logger.warning(
            "--start %s: its embedding of %d numbers is not taken, what is under it is",
            *(target, backbone.feature_dim),
        )
    trained, shown = EvaluationView(1, card["normalize"]).statistics, method.view.statistics
    if json.dumps(trained) != json.dumps(shown):
        logger.warning(
            "--start %s was trained on images normalised by %s, and this view normalises by %s",
            *(target, card["normalize"], method.view.normalize),
        )
    if card.get("grayscale", False) != method.grayscale:
        one, other = ("grey", "in colour") if card.get("grayscale") else ("in colour", "grey")
        logger.warning("--start %s was trained on images %s, and these are %s", target, one, other)


def _begin(
    cli: PretrainCLI, trainer: pl.Trainer, run_dir: Path, checkpoint: dict[str, Any] | None
) -> None:
    """Write what a run begins with, and go on in its table and on its dashboard."""
    config = cli.model.config
    board = wandb_logger(run_dir, mode=cli.config.wandb, name=run_dir.name, config=config)
    write_atomically(run_dir / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    (table,) = trainer.loggers
    table.resume_at(checkpoint["global_step"] if checkpoint else -1)
    trainer.loggers = [table, board] if board else [table]
    bf16 = "bf16" in str(trainer.precision) and trainer.strategy.root_device.type == "cpu"
    if bf16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        logging.getLogger("sslkit").warning(
            "this processor has no bfloat16 units: precision %s is emulated, several times slower "
            "than 32-true",
            trainer.precision,
        )
    print(f"run folder: {run_dir}", file=sys.stderr)


def _trainer(cli: PretrainCLI, last: Path) -> pl.Trainer:
    """The trainer of a run, with its own callbacks and plugin."""
    callbacks = [
        *[CompiledBackbone()] * cli.config.compile,
        Progress(),
        Throughput(),
        FiniteLoss(),
        OnlineSignals(cli.config.online_every),
        PictureSheets(last.parents[1]),
        SafeInterrupt(last),
        ModelCheckpoint(last.parent, last.stem, enable_version_counter=False),
    ]
    return trainer_of(
        cli,
        callbacks,
        plugins=[*listed(cli.config_init.trainer.plugins), AtomicCheckpointIO()],
        default_root_dir=last.parents[1],
    )


def _resumed(argv: list[str], run_dir: Path) -> PretrainCLI:
    config = run_dir / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"no run folder to resume at {run_dir}: it has no config.yaml")
    kept = ("--model", "--config", "--name", "--out", "--start")
    fixed = [arg.partition("=")[0] for arg in argv if arg.startswith(kept)]
    if fixed:
        raise ValueError(
            f"a resumed run keeps what it computes: leave out {', '.join(fixed)}, or start a new "
            f"run with --config {config}"
        )
    return parse(["--config", str(config), *without(argv, "--resume")])
