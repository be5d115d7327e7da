"""What makes SimCLR on CIFAR-10 better at a fixed time on two cores, one change after another.

    python eval/step_costs.py                              # first, on the machine that is meant
    python eval/recipe.py                                  # eval/results/recipe.json and .png
    python eval/recipe.py --device cuda --jobs 14

Each change of `eval/simclr_recipes.py` is first tried alone on `START`, and helps if every seed
gains and the mean gains `--least` points or more. The best of each kind then go together, and while
the others do no worse without one of them, the worst is dropped. The result meets the start once
more on seeds that chose nothing (`--confirm`). Test images choose nothing either: 5,000 training
images are held out, and classified by the kNN vote of 10,000 others.

Every run has the same time: as many steps as `--seconds` hold by `step_costs.json`, at what they
take on two cores. So the runs themselves may be made on any device, and side by side (`--jobs`);
but a GPU rounds otherwise, Muon's orthogonalisation to bfloat16. What only computes in another way,
bf16 and compiling, is timed, and run only if it is faster.

The record is written after each run; started again, the script goes on where it was.
"""

import argparse
import functools
import itertools
import json
import logging
import multiprocessing
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from gains import Entry, draw, gains, mean_gain, words
from pytorch_lightning.callbacks import EMAWeightAveraging
from records import (
    RESULTS,
    at_least,
    command_line,
    commit,
    held_out_cifar10,
    provenance,
    read_record,
)
from simclr_recipes import CHANGES, SAME, START, Recipe, images_a_step, simclr
from step_costs import PARTS, seconds, settings
from tqdm import tqdm

from sslkit.callbacks import ProgressiveResizing
from sslkit.data import ArrayDataset, BatchOrder, Loader
from sslkit.evaluation import KNN, extract
from sslkit.training import keep_freed_memory, write_atomically


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train a recipe for its steps; the accuracy on the held-out images, in percent."""
    recipe, cuda = job["recipe"], job["device"] == "cuda"
    keep_freed_memory()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    torch.set_num_threads(job["threads"])
    started = time.perf_counter()
    train, bank, held_out = data(job["images"], job["held out"], job["device"])
    pl.seed_everything(job["seed"], verbose=False)
    loader = Loader(train, BatchOrder(len(train), images_a_step(recipe), seed=job["seed"]))
    method = simclr(recipe, job["steps"] / len(loader), job["width"])
    if recipe["compiled"]:
        method.backbone.compile(dynamic=False)
    callbacks: list[pl.Callback] = []
    if recipe["sizes"]:
        callbacks.append(ProgressiveResizing(recipe["sizes"], recipe["share"]))
    if recipe["EMA"]:
        callbacks.append(EMAWeightAveraging(decay=recipe["EMA"]))
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=1,
        precision="bf16-mixed" if recipe["precision"] == "bf16" else "32-true",
        max_steps=job["steps"],
        max_epochs=-1,
        callbacks=callbacks,
        **dict.fromkeys(off, False),
    )
    trainer.fit(method, loader)
    backbone = method.backbone.to(job["device"])  # Lightning leaves it on the processor
    parts = [
        extract(backbone, part, method.eval_view, device=job["device"]) for part in (bank, held_out)
    ]
    accuracy = KNN(min(200, len(bank))).fit(*parts[0]).score(*parts[1])
    return {
        "seed": job["seed"],
        "accuracy": round(accuracy, 2),
        "seconds of the run": round(time.perf_counter() - started, 1),
    }


@functools.cache
def data(images: int | None, held_out: int, device: str) -> tuple[ArrayDataset, ...]:
    """Training images, on the device, those that vote, and the held-out ones."""
    train, bank, asked = held_out_cifar10(images, held_out)
    return train.to(device), bank, asked


class Search:
    """What helps, into a record that is saved after each run."""

    def __init__(
        self,
        record: dict[str, Any],
        costs: dict[str, Any],
        pool: Executor,
        job: dict[str, Any],
        save: Callable[[], None],
    ) -> None:
        self.record, self.costs, self.pool, self.save = record, costs, pool, save
        self.setup, self.job = record["setup"], job

    def go(self, kinds: list[str]) -> None:
        record, seeds, least = self.record, self.setup["seeds"], self.setup["least gain"]
        start = record.setdefault("start", self.entry())
        for kind in kinds:
            record["alone"].setdefault(kind, [self.entry(change) for change in CHANGES[kind]])
        tried = [entry for kind in kinds for entry in record["alone"][kind]]
        ran = [e for e in tried if not e["change"].keys() <= SAME or e["cost of an image"] < 1]
        self.make([start, *ran], seeds)
        for entry in ran:
            entry["gain"] = mean_gain(entry, start, seeds)
        helps: dict[str, Entry] = {}
        for kind in kinds:
            some = [e for e in record["alone"][kind] if "gain" in e]
            good = [e for e in some if e["gain"] >= least and min(gains(e, start, seeds)) > 0]
            if good:
                helps[kind] = max(good, key=lambda e: e["gain"])
        kept = self.together({kind: entry["change"] for kind, entry in helps.items()})
        for kind, entry in helps.items():
            rounds = [r["without"][kind] for r in record["together"] if kind in r["without"]]
            entry["gain together"], entry["kept"] = -rounds[-1]["gain"], kind in kept
        record.setdefault("result", self.entry(*kept.values()))
        self.make([start, record["result"]], [*seeds, *self.setup["seeds to confirm"]])

    def together(self, changes: dict[str, Recipe]) -> dict[str, Recipe]:
        """All changes at once, less one after the other that the rest does without."""
        rounds, seeds = self.record["together"], self.setup["seeds"]
        for i in itertools.count():
            if len(rounds) == i:
                rounds.append({"all": self.entry(*changes.values()), "without": {}})
            whole, without = rounds[i]["all"], rounds[i]["without"]
            for kind in changes:
                others = [change for other, change in changes.items() if other != kind]
                without.setdefault(kind, self.entry(*others))
            self.make([whole, *without.values()], seeds)
            for entry in without.values():
                entry["gain"] = mean_gain(entry, whole, seeds)
            worst = max(changes, key=lambda kind: without[kind]["gain"], default=None)
            if worst is None or without[worst]["gain"] < 0:
                break
            changes = {kind: change for kind, change in changes.items() if kind != worst}
        return changes

    def entry(self, *changes: Recipe) -> Entry:
        """Changes, what they cost, the steps that their time has, and the runs there are."""
        change = {key: value for some in changes for key, value in some.items()}
        recipe = {**START, **change}
        images, step = images_a_step(recipe), seconds(recipe, self.costs)
        start = seconds(START, self.costs) / images_a_step(START)
        equal = (entry["runs"] for entry in self._entries() if entry["change"] == change)
        return {
            "change": change,
            "cost of an image": float(f"{step / images / start:.4g}"),
            "steps": max(2, round(self.setup["seconds"] / step)),
            "runs": list(next(equal, [])),
        }

    def _entries(self) -> list[Entry]:
        record = self.record
        rounds = [[r["all"], *r["without"].values()] for r in record["together"]]
        alone = [*record["alone"].values(), [record["start"]] if "start" in record else []]
        return [entry for entries in (*alone, *rounds) for entry in entries]

    def make(self, entries: list[Entry], seeds: list[int]) -> None:
        """The runs that entries lack, the longest first."""
        jobs = [
            (entry, {**self.job, "recipe": {**START, **entry["change"]}, "seed": seed})
            for entry in entries
            for seed in seeds
            if all(made["seed"] != seed for made in entry["runs"])
        ]
        jobs.sort(key=lambda job: -job[0]["steps"])
        futures = {
            self.pool.submit(run, {**job, "steps": entry["steps"]}): entry for entry, job in jobs
        }
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="run", leave=False):
                entry, made = futures[future], {**future.result(), "commit": commit()}
                entry["runs"] = sorted([*entry["runs"], made], key=lambda r: r["seed"])
                self.save()
        except BaseException:
            self.pool.shutdown(wait=False, cancel_futures=True)
            raise


def arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--seconds",
        type=at_least(1, float),
        default=240.0,
        help="of training a run, on two cores",
    )
    add("--seeds", nargs="+", type=at_least(0), default=[0, 1, 2])
    add(
        "--confirm",
        nargs="*",
        type=at_least(0),
        default=[3, 4, 5],
        help="seeds of start and result",
    )
    add("--only", nargs="+", choices=CHANGES, default=list(CHANGES), help="kinds of change")
    add("--least", type=at_least(0, float), default=0.3, help="points that a change must gain")
    add("--images", type=at_least(2), help="of the training split; by default all")
    add("--held-out", type=at_least(1), default=5000, help="of those, the last, to choose on")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--jobs", type=at_least(1), default=1, help="runs side by side")
    add("--threads", type=at_least(1), default=1, help="of each run")
    add("--results", type=Path, default=RESULTS, help="folder of costs and record")
    args = parser.parse_args(argv)
    seeds = [*args.seeds, *args.confirm]
    if len(set(seeds)) < len(seeds):
        parser.error(f"--seeds and --confirm must differ, not {' '.join(map(str, seeds))}")
    if args.images and args.images <= args.held_out:
        parser.error(f"--images {args.images} leaves none beside --held-out {args.held_out}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    return parser, args


def main(argv: list[str] | None = None) -> None:
    parser, args = arguments(argv)
    path, prices = args.results / "recipe.json", args.results / "step_costs.json"
    if not prices.exists():
        parser.error(f"{prices} is not there: run eval/step_costs.py first")
    try:
        costs = read_record(prices, "width", "whole step", *PARTS)
        old = read_record(path, "setup", "hardware", "versions") if path.exists() else None
    except ValueError as error:
        parser.error(str(error))
    for part, setting in settings():
        if not any(setting.items() <= row.items() for row in costs[part]):
            parser.error(f"{prices} lacks {part} of {setting}: run eval/step_costs.py again")
    setup = {
        "seconds": args.seconds,
        "kinds": args.only,
        "seeds": args.seeds,
        "seeds to confirm": args.confirm,
        "least gain": args.least,
        "images": args.images,
        "held out": args.held_out,
        "width": costs["width"],
        "costs": {key: costs[key] for key in ("hardware", "commit", "date")},
    }
    command = command_line("eval/recipe.py", args, parser)
    new = {**provenance(command), "setup": setup, "alone": {}, "together": []}
    record = old or new
    for key in ("setup", "hardware", "versions"):
        if record[key] != new[key]:
            parser.error(f"{path} is of other {key}: move it away, or give another --results")

    def save() -> None:
        write_atomically(path, (json.dumps(record, indent=2) + "\n").encode())

    job = {key: setup[key] for key in ("images", "held out", "width")}
    job |= {"device": args.device, "threads": args.threads}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        Search(record, costs, pool, job, save).go(args.only)
    save()
    path.with_suffix(".png").write_bytes(draw(record))
    for seeds in filter(None, (args.seeds, args.confirm)):
        gained = mean_gain(record["result"], record["start"], seeds)
        print(f"{gained:+.2f} points on seeds {' '.join(map(str, seeds))}")
    print(words(record["result"]["change"]), path, sep="\n")


if __name__ == "__main__":
    main()
