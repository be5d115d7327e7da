"""Where the time of a SimCLR training step goes: images a second, and the share of each part.

    python eval/benchmarks/step.py                    # eval/results/step_cuda.json
    python eval/benchmarks/step.py --device cpu --batches 16 --images 64 --steps 2 --warmup 1

The step of `--config simclr_cifar10`, in bf16 (float32 on a processor): ResNet-18 with the stem for
32 px, uint8 images on the device, LARS or SGD, the backbone as it is written or compiled. Its parts
are cutting a batch out of the data, making two views, the network forward, the loss (both ways),
the network backward and the optimiser. They are timed by device events in a bare loop after a
warm-up; milliseconds are medians over steps. The last column of the table is the same step in the
loop of Lightning, as `sslkit pretrain` runs it.
"""

import argparse
import itertools
import json
import shlex
import statistics
import sys
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
from measure import RESULTS, provenance

from sslkit.backbones import ResNet
from sslkit.callbacks import FiniteLoss, Throughput
from sslkit.data import ArrayDataset, BatchOrder, Images, Loader
from sslkit.methods import SimCLR
from sslkit.training import Optimizer
from sslkit.views import SimCLRViews

PARTS = ("data", "views", "forward", "loss", "backward", "optimiser")
EPOCH = 50_000  # images


def simclr(optimizer: str) -> SimCLR:
    """The model of ``simclr_cifar10``, by one of two optimisers."""
    return SimCLR(
        ResNet("resnet18", stem="cifar"),
        SimCLRViews(32, jitter=0.5, blur=False, normalize="cifar10"),
        Optimizer(name=optimizer, lr=1.0 if optimizer == "lars" else 0.06),
        projector_layers=3,
    )


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


def in_lightning(method: SimCLR, loader: Loader, args: argparse.Namespace) -> float:
    """Images a second of the same step in the trainer's loop."""
    timer = Timer(args.warmup)
    trainer = pl.Trainer(
        accelerator="gpu" if args.device == "cuda" else "cpu",
        devices=1,
        precision=precision(args.device),
        max_steps=args.warmup + args.steps,
        callbacks=[Throughput(), FiniteLoss(), timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, loader)
    return significant(loader.batch_size * args.steps / timer.seconds)


def significant(value: float) -> float:
    return float(f"{value:.4g}")


def table(cells: list[dict[str, Any]]) -> str:
    """A line a case: what it does a second, and the parts of its step in percent."""
    head = ["batch", "optimiser", "backbone", "images/s", "s an epoch", *PARTS, "in Lightning"]
    rows = [head, ["---"] * len(head)]
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
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def at_least(least: int) -> Any:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, not {text}")
        return value

    number.__name__ = "int"
    return number


def arguments(argv: list[str] | None) -> tuple[argparse.Namespace, str]:
    """The options, and the command that repeats them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--batches", nargs="+", type=at_least(2), default=[512, 1024], help="images a step")
    add("--optimizers", nargs="+", choices=["lars", "sgd"], default=["lars", "sgd"])
    add("--compile", nargs="+", choices=["no", "yes"], default=["no", "yes"])
    add("--images", type=at_least(2), default=EPOCH, help="of the data")
    add("--steps", type=at_least(1), default=50, help="steps that count")
    add("--warmup", type=at_least(1), default=15, help="steps before them")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=device, choices=["cpu", "cuda"])
    add("--results", type=Path, default=RESULTS, help="where the record goes")
    args = parser.parse_args(argv)
    if max(args.batches) > args.images:
        parser.error(f"--batches: {max(args.batches)} is more than the {args.images} --images")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    words = ["python", "eval/benchmarks/step.py"]
    for key, value in vars(args).items():
        if key not in ("results", "device") and value != parser.get_default(key):
            words += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return args, shlex.join([*words, "--device", args.device])


def main(argv: list[str] | None = None) -> None:
    args, command = arguments(argv)
    # Lightning's, of a loop that is stopped early and has no workers, which is meant.
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")
    torch.backends.cudnn.benchmark = True
    started = time.perf_counter()
    cells: list[dict[str, Any]] = []
    record = {**provenance(command), "precision": precision(args.device), "cells": cells}
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / ("step_cuda.json" if args.device == "cuda" else "step.json")
    images: Tensor = torch.randint(0, 256, (args.images, 3, 32, 32), dtype=torch.uint8)
    data = ArrayDataset(images).to(args.device)
    cases = list(itertools.product(args.batches, args.compile, args.optimizers))
    for batch, compiled, optimizer in tqdm(cases, unit="case"):
        torch.compiler.reset()
        torch.manual_seed(0)
        method = simclr(optimizer)
        if compiled == "yes":
            method.backbone.compile(dynamic=False)
        case = {"batch": batch, "optimiser": optimizer, "compiled": compiled == "yes"}
        found = bare(method, Loader(data, BatchOrder(args.images, batch)), args)
        loader = Loader(data, BatchOrder(args.images, batch))
        cells.append(
            {
                **case,
                **found,
                "images per second in Lightning": in_lightning(method, loader, args),
            }
        )
        record["seconds"] = round(time.perf_counter() - started, 1)
        path.write_text(json.dumps(record, indent=2) + "\n")
    print(table(cells))
    print(path)


if __name__ == "__main__":
    main()
