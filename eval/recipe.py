"""What makes SimCLR on CIFAR-10 better at a fixed time on two cores, one change after another.

    python eval/step_costs.py                              # first, on the machine that is meant
    python eval/recipe.py                                  # eval/results/recipe.json and .png
    python eval/recipe.py --device cuda --jobs 12
    python eval/recipe.py --seconds 1 --images 512 --held-out 128 --seeds 0 --confirm --rounds crop

Starts from `simclr_cifar10_cpu` as it was before, and tries the changes of each round of
`eval/simclr_recipes.py` in turn on what was kept so far. A change is kept if every seed gains and
the mean gains `--least` points or more; of several the best. One that loses `--hopeless` points on
the first seed is dropped by it. What was kept in the end meets the start once more, on seeds that
chose nothing (`--confirm`). Test images choose nothing either: 5,000 training images are held out,
and classified by the kNN vote of 10,000 others.

Every run has the same time: as many steps as `--seconds` hold by `step_costs.json`, at what they
take on two cores. So the runs themselves may be made on any device, and side by side (`--jobs`).
What computes the same, such as compiling, is only timed, unless it is faster.

The record is written after each run; started again, the script goes on where it was.
"""

import argparse
import functools
import io
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
from simclr_recipes import ROUNDS, SAME, START, Recipe, changed, images_a_step, simclr
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
    parts = [
        extract(method.backbone, part, method.eval_view, device=job["device"])
        for part in (bank, held_out)
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
    """The rounds, one after the other, into a record that is saved after each run."""

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

    def entry(self, change: Recipe, recipe: Recipe) -> Entry:
        """A change before its runs: what it costs, and the steps that its time has."""
        images, step = images_a_step(recipe), seconds(recipe, self.costs)
        start = seconds(START, self.costs) / images_a_step(START)
        return {
            "change": {key: recipe[key.removesuffix(" times")] for key in change},
            "recipe": recipe,
            "cost of an image": float(f"{step / images / start:.4g}"),
            "steps": max(2, round(self.setup["seconds"] / step)),
            "runs": [],
        }

    def make(self, entries: list[Entry], seeds: list[int]) -> None:
        """The runs that entries lack."""
        jobs = [
            (entry, {**self.job, "recipe": entry["recipe"], "seed": seed, "steps": entry["steps"]})
            for seed in seeds
            for entry in entries
            if seed not in [run["seed"] for run in entry["runs"]]
        ]
        futures = {self.pool.submit(run, job): entry for entry, job in jobs}
        for future in tqdm(as_completed(futures), total=len(futures), unit="run", leave=False):
            entry = futures[future]
            entry["runs"] = sorted([*entry["runs"], future.result()], key=lambda r: r["seed"])
            self.save()

    def best(self, before: Entry, changes: list[Recipe], entries: list[Entry]) -> Entry | None:
        """Try a round's changes; the one to keep."""
        seeds, ran = self.setup["seeds"], []
        for change in changes[len(entries) :]:
            entries.append(self.entry(change, changed(before["recipe"], change)))
        for entry in entries:
            faster = entry["cost of an image"] < before["cost of an image"]
            if faster or not entry["change"].keys() <= SAME:
                ran.append(entry)
        self.make(ran, seeds[:1])
        hopeful = [e for e in ran if min(gains(e, before)) > -self.setup["hopeless loss"]]
        self.make(hopeful, seeds)
        for entry in ran:
            entry["gain"] = round(statistics.mean(gains(entry, before)), 2)
        least = self.setup["least gain"]
        good = [e for e in hopeful if min(gains(e, before)) > 0 and e["gain"] >= least]
        return max(good, key=lambda e: e["gain"], default=None)

    def go(self, rounds: list[str]) -> None:
        kept = start = self.record.setdefault("start", self.entry({}, START))
        self.make([start], self.setup["seeds"])
        for name in rounds:
            entries = self.record["rounds"].setdefault(name, [])
            best = self.best(kept, ROUNDS[name], entries)
            for entry in entries:
                entry["kept"] = entry is best
            kept = best or kept
            self.record["recipe"] = kept["recipe"]
            self.save()
            print(table({name: entries}), flush=True)
        if seeds := self.setup["seeds to confirm"]:
            ends = self.record.setdefault(
                "confirmed", [{**e, "runs": [], "change": {}} for e in (start, kept)]
            )
            self.make(ends, seeds)


def gains(entry: Entry, before: Entry) -> list[float]:
    """The differences of accuracy, seed by seed."""
    was = {run["seed"]: run["accuracy"] for run in before["runs"]}
    return [run["accuracy"] - was[run["seed"]] for run in entry["runs"]]


def words(change: Recipe) -> str:
    return ", ".join(f"{key} {value}" for key, value in change.items())


def table(rounds: dict[str, list[Entry]]) -> str:
    lines = []
    for name, entries in rounds.items():
        for entry in entries:
            found = [f"{r['accuracy']:.1f}" for r in entry["runs"]] or ["only timed"]
            gain = f"{entry['gain']:+.1f}" if "gain" in entry else ""
            cells = [name, words(entry["change"]), f"{entry['cost of an image']:.2f}"]
            cells += [str(entry["steps"]), " ".join(found), gain]
            cells += ["kept" if entry.get("kept") else "dropped"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(record: dict[str, Any]) -> bytes:
    """The gains of all changes that were run: a bar for the mean, a dot for each seed."""
    from matplotlib.figure import Figure

    bars, best = [], record["start"]
    for name, entries in record["rounds"].items():
        ran = [entry for entry in entries if "gain" in entry]
        bars += [(f"{name}: {words(e['change'])}", e, gains(e, best)) for e in ran]
        best = next((entry for entry in ran if entry["kept"]), best)
    figure = Figure(figsize=(8, 1.2 + 0.26 * len(bars)), layout="constrained", dpi=150)
    ax = figure.subplots()
    for y, (_, entry, gained) in enumerate(bars):
        ax.barh(y, entry["gain"], height=0.7, color=COLOURS[0] if entry["kept"] else "#bdbdc7")
        ax.plot(gained, [y] * len(gained), ".", color=INK, markersize=4)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(bars)), [label for label, *_ in bars], fontsize=8, color=INK)
    ax.invert_yaxis()
    ax.set_xlabel("points of kNN accuracy gained over what was kept before", fontsize=9, color=INK)
    ax.set_title("blue: kept; grey: dropped; dots: seeds", loc="left", fontsize=9, color=INK)
    ax.tick_params(length=0, labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seconds", type=float, default=300, help="training time of a run, on two cores")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--confirm", nargs="*", type=int, default=[3, 4, 5], help="seeds for start and result")
    add("--rounds", nargs="+", choices=ROUNDS, default=list(ROUNDS))
    add("--least", type=float, default=0.3, help="points that a change must gain")
    add("--hopeless", type=float, default=1.0, help="points lost on the first seed")
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
        "seeds": args.seeds,
        "seeds to confirm": args.confirm,
        "least gain": args.least,
        "hopeless loss": args.hopeless,
        "images": args.images,
        "held out": args.held_out,
        "width": costs["width"],
        "costs": {key: costs[key] for key in ("hardware", "commit", "date")},
    }
    command = ["python", "eval/recipe.py", "--device", args.device, "--jobs", str(args.jobs)]
    record = {**provenance(shlex.join(command)), "setup": setup, "rounds": {}}
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
        Search(record, costs, pool, job, save).go(args.rounds)
    path.with_suffix(".png").write_bytes(draw(record))
    print(json.dumps(record["recipe"], indent=2))
    print(path)


if __name__ == "__main__":
    main()
