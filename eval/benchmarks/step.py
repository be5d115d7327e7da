"""Where the time of a SimCLR training step goes: images a second, and the share of each part.

    python eval/benchmarks/step.py                    # eval/results/step.json, step_cuda.json
    python eval/benchmarks/step.py --device cpu --batches 16 --images 64 --steps 2 --warmup 1
    python eval/benchmarks/step.py --draw eval/results/step_cuda.json

The step of `--config simclr_cifar10_fast`, in bf16, or on a processor that of
`simclr_cifar10_cpu`: uint8 images on the device, the backbone as it is written or compiled. Its
parts are cutting a batch out of the data, making two views, the network forward, the loss (both
ways), the network backward and the optimiser. They are timed by device events in a bare loop after
a warm-up; milliseconds are medians over steps. In turns with it, the same step in the loop of
Lightning, as `sslkit pretrain` runs it: images a second, medians over `--turns`, and what of a step
is the loop's, by `StepProfile`.
Last, the seconds from a command in a fresh process to the end of its first step.
"""

import argparse
import itertools
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from markdown_tables import markdown
from records import RESULTS, at_least, provenance, read_record

from sslkit.callbacks import FiniteLoss, StepProfile, Throughput
from sslkit.cli.arguments import with_config_files
from sslkit.cli.config import parse
from sslkit.dashboard import step_bars
from sslkit.data import ArrayDataset, BatchOrder, Images, Loader
from sslkit.methods import SimCLR
from sslkit.training import keep_freed_memory
from sslkit.training.optimizer import NAMES

PARTS = ("data", "views", "forward", "loss", "backward", "optimiser")
EPOCH = 50_000  # images


CONFIGS = {"cuda": "simclr_cifar10_fast", "cpu": "simclr_cifar10_cpu"}


def simclr(config: str, optimizer: str | None = None) -> SimCLR:
    """The model of a config, maybe by another optimiser."""
    argv = ["--config", config]
    argv += ["--model.optimizer.name", optimizer] if optimizer else []
    return parse(with_config_files(argv)).model


class Clock:
    """Marks in the stream of a device's work, or in time on a processor."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.marks: list[Any] = []

    def mark(self) -> None:
        self.marks.append(torch.cuda.Event(enable_timing=True) if self.cuda else now(False))
        if self.cuda:
            self.marks[-1].record()

    def laps(self) -> list[float]:
        """The milliseconds between marks."""
        pairs = list(itertools.pairwise(self.marks))
        if not self.cuda:
            return [1e3 * (b - a) for a, b in pairs]
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in pairs]


def now(cuda: bool) -> float:
    """The time, when the device is done."""
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def step(
    method: SimCLR, optimizer: torch.optim.Optimizer, batches: Iterator[Images], seed: int
) -> Clock:
    """One training step, with a mark between its parts."""
    device = method.device.type
    clock = Clock(device)
    clock.mark()
    images = next(batches)
    clock.mark()
    torch.manual_seed(seed)
    method.view.manual_seed(seed)
    with torch.autocast(device, torch.bfloat16, enabled=clock.cuda):
        views, _ = method.make_views(images.images)
        clock.mark()
        z = method.projector(method.backbone(torch.cat(views)))
        clock.mark()
        leaf = z.detach().requires_grad_()  # so that the loss has a backward pass of its own
        loss = method.loss(*leaf.chunk(2))
    loss.backward()
    clock.mark()
    z.backward(leaf.grad)
    clock.mark()
    optimizer.step()
    optimizer.zero_grad()
    clock.mark()
    return clock


def precision(device: str) -> str:
    return "bf16-mixed" if device == "cuda" else "32-true"


def endless(loader: Loader) -> Iterator[Images]:
    for epoch in itertools.count():
        loader.sampler.set_epoch(epoch)
        yield from loader


def bare(method: SimCLR, loader: Loader, args: argparse.Namespace) -> dict[str, Any]:
    """The step in a loop of its own."""
    cuda = args.device == "cuda"
    method.to(args.device).train()
    optimizer = method.optimizer.build(method, loader.batch_size)
    batches = endless(loader)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started = now(cuda)
    step(method, optimizer, batches, 0)
    first = now(cuda) - started
    for i in range(args.warmup):
        step(method, optimizer, batches, i)
    started = now(cuda)
    clocks = [step(method, optimizer, batches, i) for i in range(args.steps)]
    seconds = now(cuda) - started
    laps = [clock.laps() for clock in clocks]
    parts = {p: statistics.median(of) for p, of in zip(PARTS, zip(*laps, strict=True), strict=True)}
    rate = loader.batch_size * args.steps / seconds
    return {
        "images per second": significant(rate),
        "seconds an epoch": significant(EPOCH / rate),
        "milliseconds": {part: significant(ms) for part, ms in parts.items()},
        "share of views and loss": significant(
            (parts["views"] + parts["loss"]) / sum(parts.values())
        ),
        "first step in seconds": significant(first),
        "peak memory in GB": significant(torch.cuda.max_memory_allocated() / 1e9) if cuda else None,
    }


class Timer(pl.Callback):
    """The seconds of the steps after a warm-up."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.seconds = warmup, 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.warmup:
            self.seconds -= now(torch.cuda.is_available())
        elif trainer.global_step == trainer.max_steps:
            self.seconds += now(torch.cuda.is_available())


def both(method: SimCLR, loader: Loader, args: argparse.Namespace) -> dict[str, Any]:
    """The step in a bare loop and in the trainer's, in turns; then the loop's part of it."""
    turns = [(bare(method, loader, args), fitted(method, loader, args)) for _ in range(args.turns)]
    found = sorted((loop for loop, _ in turns), key=lambda loop: loop["images per second"])
    profile = StepProfile(args.warmup).watch(method, args.device)
    fitted(method, loader, args, profile)
    (parts,) = profile.found().values()
    return {
        **found[len(found) // 2],
        "first step in seconds": turns[0][0]["first step in seconds"],
        "images per second in Lightning": statistics.median(rate for _, rate in turns),
        "milliseconds in Lightning": {part: significant(ms) for part, ms in parts.items()},
        "share of the loop": significant(parts["loop"] / sum(parts.values())),
    }


def fitted(
    method: SimCLR, loader: Loader, args: argparse.Namespace, profile: StepProfile | None = None
) -> float:
    """Images a second of the steps after the warm-up."""
    timer = Timer(args.warmup)
    more = 1 if profile else 0  # whose first step ends where its first interval begins
    trainer = pl.Trainer(
        accelerator="gpu" if args.device == "cuda" else "cpu",
        devices=1,
        precision=precision(args.device),
        max_steps=args.warmup + args.steps + more,
        callbacks=[Throughput(), FiniteLoss(), timer],
        profiler=profile,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, loader)
    return significant(loader.batch_size * args.steps / timer.seconds)


def first_step(config: str, device: str) -> float:
    """Seconds from a command to the end of its first step, in a fresh process."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "sslkit", "pretrain", "--config", config, "--out", out]
        command += ["--profile-step", "1", "--trainer.accelerator", device]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads((Path(out) / f"{config}-step.json").read_text())
    return found["seconds to the first step"]


def draw(record: dict[str, Any]) -> bytes:
    """The steps of a record as bars; with the loop's part where it is known."""
    bars = {}
    for cell in record["cells"]:
        kind = "compiled" if cell["compiled"] else "eager"
        found = cell.get("milliseconds in Lightning", cell["milliseconds"])
        names = {"forward": "network forward", "backward": "network backward"}
        bars[f"batch {cell['batch']}, {kind}"] = {names.get(k, k): ms for k, ms in found.items()}
    config = record.get("config", "simclr_cifar10")  # which is not in the first records
    return step_bars(bars, f"{config}: {record['hardware']}, {record['precision']}")


def significant(value: float) -> float:
    return float(f"{value:.4g}")


def table(cells: list[dict[str, Any]]) -> str:
    """A line a case: what it does a second, and the parts of its step in percent."""
    head = [
        "batch",
        "optimiser",
        "backbone",
        "images/s",
        "s an epoch",
        *PARTS,
        "in Lightning",
        "loop",
    ]
    rows = [head]
    for cell in cells:
        total = sum(cell["milliseconds"].values())
        rows.append(
            [
                str(cell["batch"]),
                cell["optimiser"],
                "compiled" if cell["compiled"] else "eager",
                f"{cell['images per second']:,.0f}",
                f"{cell['seconds an epoch']:.3g}",
                *(f"{100 * cell['milliseconds'][part] / total:.1f} %" for part in PARTS),
                f"{cell['images per second in Lightning']:,.0f}",
                f"{100 * cell['share of the loop']:.1f} %",
            ]
        )
    return markdown(rows)


def arguments(argv: list[str] | None) -> tuple[argparse.Namespace, str]:
    """The options, and the command that repeats them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--config", help="by default simclr_cifar10_fast on a GPU, simclr_cifar10_cpu without")
    add("--batches", nargs="+", type=at_least(2), help="images a step; by default the config's")
    add("--optimizers", nargs="+", choices=NAMES, help="by default the config's")
    add("--compile", nargs="+", choices=["no", "yes"], default=["no", "yes"])
    add("--images", type=at_least(2), default=EPOCH, help="of the data")
    add("--steps", type=at_least(1), default=50, help="steps that count")
    add("--warmup", type=at_least(1), default=15, help="steps before them")
    add("--turns", type=at_least(1), default=3, help="of the bare loop and Lightning's")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, choices=["cpu", "cuda"])
    add("--results", type=Path, default=RESULTS, help="folder of the record")
    add("--draw", type=Path, metavar="FILE", help="draw this record, and measure nothing")
    args = parser.parse_args(argv)
    args.config = args.config or CONFIGS[args.device]
    try:
        cli = parse(with_config_files(["--config", args.config]))
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    if not isinstance(cli.model, SimCLR):
        parser.error(f"--config {args.config} is of {type(cli.model).__name__}, not of SimCLR")
    args.batches = args.batches or [cli.datamodule.batch_size]
    if args.draw and not args.draw.is_file():
        parser.error(f"--draw: no record {args.draw}")
    try:
        if args.draw:
            read_record(args.draw, "cells", "hardware", "precision")
    except ValueError as error:
        parser.error(f"--draw: {error}")
    if max(args.batches) > args.images:
        parser.error(f"--batches: {max(args.batches)} is more than the {args.images} --images")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    words = ["python", "eval/benchmarks/step.py", "--config", args.config]
    for key, value in vars(args).items():
        if key not in ("results", "device", "config") and value != parser.get_default(key):
            words += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return args, shlex.join([*words, "--device", args.device])


def main(argv: list[str] | None = None) -> None:
    args, command = arguments(argv)
    # Lightning's, of a loop that is stopped early and has no workers, which is meant.
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")
    torch.backends.cudnn.benchmark = True
    if args.draw:
        args.draw.with_suffix(".png").write_bytes(draw(read_record(args.draw)))
        print(args.draw.with_suffix(".png"))
        return
    started = time.perf_counter()
    cells: list[dict[str, Any]] = []
    record: dict[str, Any] = {**provenance(command), "config": args.config}
    record |= {"precision": precision(args.device), "cells": cells}
    args.results.mkdir(parents=True, exist_ok=True)
    record["seconds to the first step"] = first_step(args.config, args.device)
    path = args.results / ("step_cuda.json" if args.device == "cuda" else "step.json")
    images: Tensor = torch.randint(0, 256, (args.images, 3, 32, 32), dtype=torch.uint8)
    data = ArrayDataset(images).to(args.device)
    if args.device == "cpu":
        loader = Loader(data, BatchOrder(args.images, args.batches[0]))
        found = bare(simclr(args.config), loader, args)
        record["images per second, memory returned"] = found["images per second"]
        keep_freed_memory()
    cases = list(itertools.product(args.batches, args.compile, args.optimizers or [None]))
    for batch, compiled, optimizer in tqdm(cases, unit="case"):
        torch.compiler.reset()
        torch.manual_seed(0)
        method = simclr(args.config, optimizer)
        if compiled == "yes":
            method.backbone.compile(dynamic=False)
        case = {"batch": batch, "optimiser": method.optimizer.name, "compiled": compiled == "yes"}
        loader = Loader(data, BatchOrder(args.images, batch))
        cells.append({**case, **both(method, loader, args)})
        record["seconds"] = round(time.perf_counter() - started, 1)
        path.write_text(json.dumps(record, indent=2) + "\n")
    path.with_suffix(".png").write_bytes(draw(record))
    print(table(cells))
    print(f"first step {record['seconds to the first step']} s after the command")
    print(path)


if __name__ == "__main__":
    main()
