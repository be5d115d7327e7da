"""What makes SimCLR on CIFAR-10 better at a fixed time on two cores, one change after another.

    python eval/step_costs.py                              # first, on the machine that is meant
    python eval/recipe.py                                  # eval/results/recipe.json and .png
    python eval/recipe.py --device cuda --jobs 12
    python eval/recipe.py --seconds 1 --images 512 --held-out 128 --only crop

Starts from `simclr_cifar10_cpu` as it was before. Each change of `eval/simclr_recipes.py` is first
tried alone, and helps if every seed gains and the mean gains `--least` points or more. The best of
each kind then go together, and while the others do better without one of them, the worst is
dropped. The result meets the start once more on seeds that chose nothing (`--confirm`). Test images
choose nothing either: 5,000 training images are held out, and classified by the kNN vote of 10,000
others.

Every run has the same time: as many steps as `--seconds` hold by `step_costs.json`, at what they
take on two cores. So the runs themselves may be made on any device, and side by side (`--jobs`).
What computes the same, such as compiling, is only timed, unless it is faster.

The record is written after each run; started again, the script goes on where it was.
"""

import argparse
import functools
import io
import itertools
import json
import logging
import multiprocessing
import shlex
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from measure import RESULTS, provenance
from pytorch_lightning.callbacks import EMAWeightAveraging
from simclr_recipes import CHANGES, SAME, START, Recipe, images_a_step, simclr
from step_costs import seconds
from tqdm import tqdm

from sslkit.callbacks import ProgressiveResizing
from sslkit.dashboard.plots import COLOURS, INK
from sslkit.data import ArrayDataset, BatchOrder, Loader, load
from sslkit.evaluation import KNN, extract
from sslkit.training import keep_freed_memory

Entry = dict[str, Any]  # of the record: a change, its steps and runs


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train a recipe for its steps; the accuracy on the held-out images, in percent."""
    recipe, cuda = job["recipe"], job["device"] == "cuda"
    keep_freed_memory()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    torch.set_num_threads(job["threads"])
    started = time.perf_counter()
    train, held_out, bank = data(job["images"], job["held out"], job["device"])
    pl.seed_everything(job["seed"], verbose=False)
    loader = Loader(train, BatchOrder(len(train), images_a_step(recipe), seed=job["seed"]))
    method = simclr(recipe, job["steps"] / len(loader), job["width"])
    callbacks: list[pl.Callback] = []
    if recipe["sizes"]:
        callbacks.append(ProgressiveResizing(recipe["sizes"], recipe["share"]))
    if recipe["EMA"]:
        callbacks.append(EMAWeightAveraging(decay=recipe["EMA"]))
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=1,
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
def data(
    images: int | None, held_out: int, device: str
) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """Training images, the held-out ones, and those that vote: all of the training split."""
    whole = load("cifar10", "train")
    end = len(whole) if images is None else images
    parts = [slice(0, end - held_out), slice(end - held_out, end)]
    parts.append(slice(0, min(10_000, end - held_out)))
    made = [ArrayDataset(whole.images[part], whole.labels[part]) for part in parts]
    return made[0].to(device), made[1], made[2]


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

    def entry(self, *changes: Recipe) -> Entry:
        """Changes before their runs: what they cost, and the steps that their time has."""
        change = {key: value for some in changes for key, value in some.items()}
        recipe = {**START, **change}
        images, step = images_a_step(recipe), seconds(recipe, self.costs)
        start = seconds(START, self.costs) / images_a_step(START)
        return {
            "change": change,
            "cost of an image": float(f"{step / images / start:.4g}"),
            "steps": max(2, round(self.setup["seconds"] / step)),
            "runs": [],
        }

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
        for future in tqdm(as_completed(futures), total=len(futures), unit="run", leave=False):
            entry = futures[future]
            entry["runs"] = sorted([*entry["runs"], future.result()], key=lambda r: r["seed"])
            self.save()

    def go(self, kinds: list[str]) -> None:
        record, seeds, least = self.record, self.setup["seeds"], self.setup["least gain"]
        start = record.setdefault("start", self.entry())
        for kind in kinds:
            record["alone"].setdefault(kind, [self.entry(change) for change in CHANGES[kind]])
        tried = [entry for kind in kinds for entry in record["alone"][kind]]
        ran = [e for e in tried if not e["change"].keys() <= SAME or e["cost of an image"] < 1]
        self.make([start, *ran], seeds)
        helps: dict[str, Entry] = {}
        for entry in ran:
            entry["gain"] = mean_gain(entry, start, seeds)
        for kind in kinds:
            some = [e for e in record["alone"][kind] if "gain" in e]
            good = [e for e in some if e["gain"] >= least and min(gains(e, start, seeds)) > 0]
            if good:
                helps[kind] = max(good, key=lambda e: e["gain"])
        kept = self.together({kind: entry["change"] for kind, entry in helps.items()}, seeds)
        for kind, entry in helps.items():
            rounds = [
                r["without"][kind]["gain"] for r in record["together"] if kind in r["without"]
            ]
            entry["gain together"], entry["kept"] = -rounds[-1], kind in kept
        result = record.setdefault("result", self.entry(*kept.values()))
        self.make([start, result], [*seeds, *self.setup["seeds to confirm"]])

    def together(self, changes: dict[str, Recipe], seeds: list[int]) -> dict[str, Recipe]:
        """All changes at once, less one after the other that the rest does better without."""
        rounds = self.record["together"]
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
                return changes
            changes = {kind: change for kind, change in changes.items() if kind != worst}
        raise AssertionError


def gains(entry: Entry, before: Entry, seeds: list[int]) -> list[float]:
    """The differences of accuracy, seed by seed."""
    was, now = ({run["seed"]: run["accuracy"] for run in e["runs"]} for e in (before, entry))
    return [now[seed] - was[seed] for seed in seeds]


def mean_gain(entry: Entry, before: Entry, seeds: list[int]) -> float:
    return round(statistics.mean(gains(entry, before, seeds)), 2)


def words(change: Recipe) -> str:
    return ", ".join(f"{key} {value}" for key, value in change.items())


def draw(record: dict[str, Any]) -> bytes:
    """What each change gained alone: a bar for the mean, a dot for each seed."""
    from matplotlib.figure import Figure

    ran = [entry for entries in record["alone"].values() for entry in entries if "gain" in entry]
    ran.sort(key=lambda entry: -entry["gain"])
    figure = Figure(figsize=(8, 1.2 + 0.26 * len(ran)), layout="constrained", dpi=150)
    ax = figure.subplots()
    for y, entry in enumerate(ran):
        colour = COLOURS[0] if entry.get("kept") else "#bdbdc7"
        found = gains(entry, record["start"], record["setup"]["seeds"])
        ax.barh(y, entry["gain"], height=0.7, color=colour)
        ax.plot(found, [y] * len(found), ".", color=INK, markersize=4)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(ran)), [words(e["change"]) for e in ran], fontsize=8, color=INK)
    ax.invert_yaxis()
    ax.set_xlabel("points of kNN accuracy gained in the same time", fontsize=9, color=INK)
    ax.set_title("blue: kept; grey: dropped; dots: seeds", loc="left", fontsize=9, color=INK)
    ax.tick_params(length=0, labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seconds", type=float, default=240, help="training time of a run, on two cores")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--confirm", nargs="*", type=int, default=[3, 4, 5], help="seeds for start and result")
    add("--only", nargs="+", choices=CHANGES, default=list(CHANGES), help="kinds of change")
    add("--least", type=float, default=0.3, help="points that a change must gain")
    add("--images", type=int, help="of the training split; by default all")
    add("--held-out", type=int, default=5000, help="of those, the last, to choose on")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--jobs", type=int, default=1, help="runs side by side")
    add("--threads", type=int, default=1, help="of each run")
    add("--results", type=Path, default=RESULTS, help="where the costs are and the record goes")
    args = parser.parse_args(argv)
    path, prices = args.results / "recipe.json", args.results / "step_costs.json"
    if not prices.exists():
        parser.error(f"{prices} is not there: run eval/step_costs.py first")
    costs = json.loads(prices.read_text())
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
    command = ["python", "eval/recipe.py", "--device", args.device, "--jobs", str(args.jobs)]
    record = {**provenance(shlex.join(command)), "setup": setup, "alone": {}, "together": []}
    if path.exists():
        record = json.loads(path.read_text())
        if record["setup"] != setup:
            parser.error(f"{path} is of another setup: move it away, or give another --results")
    if args.device == "cuda":
        record["hardware"] = torch.cuda.get_device_name()

    def save() -> None:
        path.write_text(json.dumps(record, indent=2) + "\n")

    job = {key: setup[key] for key in ("images", "held out", "width")}
    job |= {"device": args.device, "threads": args.threads}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        Search(record, costs, pool, job, save).go(args.only)
    path.with_suffix(".png").write_bytes(draw(record))
    for seeds in filter(None, (args.seeds, args.confirm)):
        gained = mean_gain(record["result"], record["start"], seeds)
        print(f"{gained:+.2f} points on seeds {' '.join(map(str, seeds))}")
    print(words(record["result"]["change"]), path, sep="\n")


if __name__ == "__main__":
    main()
