"""``sslkit pretrain --profile-step N``: where the time of a config's training step goes."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from sslkit.callbacks import (
    CompiledBackbone,
    FiniteLoss,
    Progress,
    StepProfile,
    Throughput,
)
from sslkit.cli import STARTED
from sslkit.cli.arguments import values, with_config_files, without
from sslkit.cli.config import PretrainCLI, parse
from sslkit.cli.run_folder import name_of
from sslkit.cli.trainer import checked_resizing, listed, trainer_of
from sslkit.dashboard import step_bars
from sslkit.training import write_atomically


def run(argv: list[str]) -> int:
    """Time the steps, print their parts; returns the exit code."""
    given = values(argv, "--profile-step")[-1]
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"--profile-step takes a number of steps, 1 or more, not {given!r}")
    if values(argv, "--resume"):
        raise ValueError("--profile-step times a new run: give --config, not --resume")
    cli = parse(with_config_files(without(argv, "--profile-step")), own=("--profile-step",))
    method, data = cli.model, cli.datamodule
    name, profile = name_of(cli, argv), StepProfile()
    trainer = _trainer(cli, profile, int(given))
    if trainer.world_size > 1:
        raise ValueError(
            f"--profile-step takes one process, not {trainer.world_size}: add --trainer.devices 1"
        )
    data.setup("fit")
    method.take(data)
    profile.watch(method, trainer.strategy.root_device)
    try:
        trainer.fit(method, datamodule=data)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    found = {
        "config": name,
        "method": type(method).__name__,
        "batch": data.batch_size,
        "precision": str(trainer.precision),
        "compiled": cli.config.compile,
        "steps": int(given),
        "seconds to the first step": round(profile.first_step - STARTED, 1),
        "milliseconds": {f"{size} px": parts for size, parts in sorted(profile.found().items())},
    }
    title = f"{name}: {data.batch_size} images a step, {trainer.precision}"
    print(f"{title}\n{table(found)}")
    print(f"first step done {found['seconds to the first step']} s after the command")
    path = Path(cli.config.out) / f"{name}-step.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(found, indent=2) + "\n").encode())
    write_atomically(path.with_suffix(".png"), step_bars(found["milliseconds"], title))
    print(f"picture: {path.with_suffix('.png')}\nnumbers: {path}", file=sys.stderr)
    return 0


def table(found: Mapping[str, Any]) -> str:
    """A line for each size of views: the shares of the parts of a step, and images a second.

    >>> print(table({"batch": 8, "milliseconds": {"32 px": {"views": 1.0, "loss": 3.0}}}))
    | size | views | loss | step | images/s |
    | --- | ---: | ---: | ---: | ---: |
    | 32 px | 25.0 % | 75.0 % | 4.0 ms | 2,000 |
    """
    lines = []
    for size, parts in found["milliseconds"].items():
        total = sum(parts.values())
        shares = [f"{100 * ms / total:.1f} %" for ms in parts.values()]
        rate = f"{1e3 * found['batch'] / total:,.0f}"
        lines.append([size, *shares, f"{total:.1f} ms", rate])
    head = ["size", *parts, "step", "images/s"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _trainer(cli: PretrainCLI, profile: StepProfile, steps: int) -> pl.Trainer:
    """The trainer of a run without what it does between steps, ending after so many that count."""
    given = cli.config_init.trainer
    for option, plain in (("fast_dev_run", False), ("profiler", None)):
        if given[option] != plain:
            raise ValueError(f"--profile-step has its own trainer: leave out trainer.{option}")
    if given.accumulate_grad_batches > 1:
        raise ValueError(
            "--profile-step times steps of one batch: leave out trainer.accumulate_grad_batches"
        )
    least = 1.0  # the part of the steps that have a size
    if resizing := checked_resizing(listed(given.callbacks), cli.model):
        least = min(resizing.share / len(resizing.sizes), 1 - resizing.share)
    own = [*[CompiledBackbone()] * cli.config.compile, Progress(), Throughput(), FiniteLoss()]
    return trainer_of(
        cli,
        own,
        profiler=profile,
        max_epochs=-1,
        max_time=None,
        max_steps=math.ceil((steps + profile.warmup + 1) / least),
        enable_checkpointing=False,
    )
