"""What choosing negatives costs: a step of DE-DSP and PADS over one of the loss alone.

    python eval/benchmarks/sampling.py

A step is the network, the loss and the optimiser, with the choice of classes and the judging, and
without data and views. The three take turns, each first in its turn, in the settings of
`eval/metric_learning.py`, on random images; a round is so many steps that each judges itself a
whole number of times. The record is eval/results/sampling.json.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from metric_rows import ROWS, SETS, Setting, method_of
from records import RESULTS, at_least, command_line, provenance

from sslkit.data import ArrayDataset, DataModule
from sslkit.data.class_batches import seeds_of
from sslkit.methods.base import Batch
from sslkit.training import keep_freed_memory

CONTENDERS = ("triplet", "DE-DSP (triplet)", "PADS (triplet)")
CHOSEN = {"lr": 0.001, "normalize": True}
STEPS = 60  # DE-DSP judges itself every 15, PADS every 30
CLASSES, OF_CLASS = 98, 10


class Contender:
    """A method and its optimiser, and how long its steps have taken."""

    def __init__(self, row: str, setting: Setting) -> None:
        self.model = method_of(ROWS[row], setting, CHOSEN)
        self.model.take(random_data(setting))
        self.optimizer = self.model.optimizer.build(self.model, 1, self.model.rates())
        self.generator, self.seconds = torch.Generator().manual_seed(0), 0.0

    def step(self, batch: Batch) -> None:
        started, model = time.perf_counter(), self.model
        if hasattr(model, "choose"):
            classes = len(batch.labels) // 2
            seeds = batch.labels[::2][: seeds_of(classes)].tolist()
            model.choose(seeds, classes - len(seeds), self.generator)
        self.optimizer.zero_grad()
        model.objective(batch)["loss"].backward()
        self.optimizer.step()
        self.seconds += time.perf_counter() - started


def random_data(setting: Setting) -> DataModule:
    labels = torch.arange(CLASSES).repeat(OF_CLASS)
    shape = (len(labels), 3, setting.pixels, setting.pixels)
    data = DataModule(
        batch_size=setting.batch, per_class=setting.per_class, held_out=setting.held_out
    )
    data.dataset, data.seed = ArrayDataset(torch.randint(256, shape, dtype=torch.uint8), labels), 0
    return data


def cost(setting: Setting, rounds: int, name: str) -> dict[str, Any]:
    """Seconds a step of each contender, medians of rounds, and their ratios to the first."""
    torch.manual_seed(0)
    contenders = {row: Contender(row, setting) for row in CONTENDERS}
    size = setting.view["size"]
    found: dict[str, list[float]] = {row: [] for row in CONTENDERS}
    with tqdm(total=(rounds + 1) * STEPS, desc=name, unit="step") as bar:
        for _ in range(rounds + 1):
            for i in range(STEPS):
                classes = torch.randperm(CLASSES)[: setting.batch // setting.per_class]
                labels = classes.repeat_interleave(setting.per_class)
                images = torch.randn(len(labels), 3, size, size)
                images = images.contiguous(memory_format=torch.channels_last)
                turn = [*contenders.values()]
                for contender in turn[i % len(turn) :] + turn[: i % len(turn)]:
                    contender.step(Batch((images,), None, labels, labels))
                bar.update()
            for row, contender in contenders.items():
                found[row].append(contender.seconds / STEPS)
                contender.seconds = 0.0
    seconds = {row: statistics.median(values[1:]) for row, values in found.items()}
    own = [values[1:] for values in found.values()]
    ratios = {
        row: round(statistics.median(b / a for a, b in zip(own[0], values, strict=True)), 4)
        for row, values in zip(found, own, strict=True)
    }
    return {"seconds a step": {r: round(s, 5) for r, s in seconds.items()}, "over the loss": ratios}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    args = parser.parse_args(argv)
    keep_freed_memory()
    record = provenance(command_line("eval/benchmarks/sampling.py", args, parser))
    record["sets"] = {name: cost(SETS[name], args.rounds, name) for name in args.sets}
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "sampling.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["sets"], indent=2), path, sep="\n")


if __name__ == "__main__":
    main()
