"""What makes SimCLR on CIFAR-10 better at a fixed time on two cores, one change after another.

    python eval/recipe.py                                  # eval/results/recipe.json
    python eval/recipe.py --seconds 1 --images 512 --held-out 128 --seeds 0 --rounds batch

Starts from `--config simclr_cifar10_cpu` as it was before, and tries the changes of each round in
turn on what was kept so far. A change is kept if every seed gains and the mean gains `--least`
points or more; of several the best. Nothing is chosen on test images: 5,000 training images are
held out, and classified by the kNN vote of 10,000 others.

Each run has the same time: its number of steps follows from what a step of it costs, measured in
processor time of one thread beside the step of the start, at every size of views that it has. So
it does not matter what else the machine does meanwhile, and runs may be made side by side
(`--jobs`). A change that computes the same as before, such as compiling, is only timed.

The record is written after each run; started again, the script goes on where it was.
"""

import argparse
import io
import json
import logging
import multiprocessing
import os
import shlex
import statistics
import time
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from measure import RESULTS, provenance
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor
from tqdm import tqdm

from sslkit.backbones import ResNet9
from sslkit.callbacks import ProgressiveResizing
from sslkit.dashboard.plots import COLOURS, INK
from sslkit.data import ArrayDataset, BatchOrder, Loader, load
from sslkit.evaluation import KNN, extract
from sslkit.losses import DecoupledNTXentLoss, HardNTXentLoss, NTXentLoss
from sslkit.methods import SimCLR
from sslkit.methods.base import Batch
from sslkit.training import Optimizer, keep_freed_memory
from sslkit.views import AugmentedViews, SimCLRViews

Recipe = dict[str, Any]

START: Recipe = {
    "sizes": [],  # of the views of the first `share` of steps
    "share": 0.7,
    "batch": 256,
    "optimizer": "adamw",
    "lr": 0.002,  # at this batch, whatever it is
    "weight decay": 1e-4,
    "warm-up": 0.03,  # share of all steps
    "schedule": "cosine",
    "temperature": 0.2,
    "crop": 0.2,  # least area
    "jitter": 0.5,
    "hidden": 128,  # width of the projector
    "layers": 2,
    "loss": "NT-Xent",
    "views": 2,  # of each image; batch / views * 2 images a step
    "EMA": 0.0,  # decay
    "precision": "float32",
    "compiled": False,
}
ROUNDS: dict[str, list[Recipe]] = {
    "small images first": [{"sizes": [16]}, {"sizes": [16, 24], "share": 0.8}],
    "batch": [{"batch": 128}, {"batch": 64}],
    "optimiser": [
        {"optimizer": "muon", "momentum": 0.95},
        {"optimizer": "muon", "momentum": 0.95, "lr": 0.006},
        {"optimizer": "sgd", "lr": 0.06, "weight decay": 5e-4},
        {"optimizer": "lars", "lr": 0.5},
    ],
    "learning rate": [{"lr": 2.0}, {"lr": 0.5}],  # times that of before
    "schedule": [{"schedule": "linear"}],
    "temperature": [{"temperature": 0.1}, {"temperature": 0.5}],
    "crop": [{"crop": 0.08}, {"crop": 0.4}],
    "jitter": [{"jitter": 0.25}, {"jitter": 1.0}],
    "projector": [{"hidden": 512}, {"hidden": 512, "layers": 3}],
    "loss": [{"loss": "decoupled"}, {"loss": "hard negatives"}],
    "repeated augmentation": [{"views": 4}],
    "average of weights": [{"EMA": 0.99}],
    "bf16": [{"precision": "bf16"}],
    "compile": [{"compiled": True}],
}
SAME = {"precision", "compiled"}  # what computes the same, but for rounding
FREE = {"lr", "weight decay", "schedule", "temperature", "crop", "jitter", "EMA"}  # cost nothing


class ManyViews(SimCLR):
    """SimCLR with any number of views of an image."""

    n_views = None

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        z = self.projector(self.backbone(torch.cat(batch.views)))
        return {"loss": self.loss(*z.chunk(len(batch.views)))}


def simclr(recipe: Recipe, epochs: float, width: int) -> SimCLR:
    """The model of a recipe, for a run of so many epochs."""
    view: AugmentedViews = SimCLRViews(
        32, scale=(recipe["crop"], 1.0), jitter=recipe["jitter"], blur=False, normalize="cifar10"
    )
    view.augments.extend([view.augments[0]] * (recipe["views"] - 2))
    optimizer = Optimizer(
        name=recipe["optimizer"],
        lr=recipe["lr"],
        lr_scaling="none",
        weight_decay=recipe["weight decay"],
        momentum=recipe.get("momentum", 0.9),
        warmup_epochs=recipe["warm-up"] * epochs,
        schedule=recipe["schedule"],
    )
    method = ManyViews(
        ResNet9(width),
        view,
        optimizer,
        hidden_dim=recipe["hidden"],
        projector_layers=recipe["layers"],
    )
    kinds = {"decoupled": DecoupledNTXentLoss, "hard negatives": HardNTXentLoss}
    method.loss = kinds.get(recipe["loss"], NTXentLoss)(recipe["temperature"])
    return method


def images_a_step(recipe: Recipe) -> int:
    return recipe["batch"] * 2 // recipe["views"]


def seconds_a_step(recipe: Recipe, width: int, repeats: int) -> list[float]:
    """What a step takes at each size of views that the recipe has, the full size last."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    torch.manual_seed(0)
    method = simclr(recipe, 1.0, width).train()
    if recipe["compiled"]:
        torch.compiler.reset()
        method.backbone.compile(dynamic=False)
    optimizer = method.optimizer.build(method, recipe["batch"])
    images = torch.randint(0, 256, (images_a_step(recipe), 3, 32, 32), dtype=torch.uint8)
    labels = torch.zeros(len(images), dtype=torch.int64)
    found = []
    for size in [*recipe["sizes"], 32]:
        for augment in method.view.augments:
            augment.resize(size)
        times = []
        for _ in range(repeats + 2):
            started = clock()
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe["precision"] == "bf16"):
                views, _ = method.make_views(images)
                loss = method.objective(Batch(views, None, labels, labels))["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            times.append(clock() - started)
        found.append(min(times[2:]))
    return found


def cost(recipe: Recipe, width: int) -> float:
    """Seconds an image of a recipe over those of the start, both measured in turns."""
    ours, theirs = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(2):
        theirs.append(seconds_a_step(START, width, 2)[-1] / START["batch"])
        *small, full = seconds_a_step(recipe, width, 2 * 256 // recipe["batch"])
        share = recipe["share"] if small else 0.0
        mean = share * (statistics.mean(small) if small else 0.0) + (1 - share) * full
        ours.append(mean / images_a_step(recipe))
    torch.set_num_threads(threads)
    return min(ours) / min(theirs)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Train a recipe for its steps; the accuracy on the held-out images, in percent."""
    recipe, args = job["recipe"], job["args"]
    keep_freed_memory()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // args.jobs))
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    started = time.perf_counter()
    train, held_out, bank = data(args)
    pl.seed_everything(job["seed"], verbose=False)
    size = images_a_step(recipe)
    loader = Loader(train, BatchOrder(len(train), size, seed=job["seed"]))
    method = simclr(recipe, job["steps"] / len(loader), args.width)
    callbacks: list[pl.Callback] = []
    if recipe["sizes"]:
        callbacks.append(ProgressiveResizing(recipe["sizes"], recipe["share"]))
    if recipe["EMA"]:
        callbacks.append(EMAWeightAveraging(decay=recipe["EMA"]))
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=job["steps"],
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, loader)
    parts = [extract(method.backbone, part, method.eval_view) for part in (bank, held_out)]
    accuracy = KNN(min(200, len(bank))).fit(*parts[0]).score(*parts[1])
    return {
        "seed": job["seed"],
        "accuracy": round(accuracy, 2),
        "seconds of the run": round(time.perf_counter() - started, 1),
    }


def data(args: argparse.Namespace) -> tuple[ArrayDataset, ArrayDataset, ArrayDataset]:
    """Training images, the held-out ones, and those that vote: all of the training split."""
    whole = load("cifar10", "train")
    end = len(whole) if args.images is None else args.images
    parts = [slice(0, end - args.held_out), slice(end - args.held_out, end)]
    parts.append(slice(0, min(10_000, end - args.held_out)))
    return tuple(ArrayDataset(whole.images[part], whole.labels[part]) for part in parts)


def changed(kept: Recipe, change: Recipe) -> Recipe:
    """A recipe with a change; a learning rate alone is a factor."""
    if set(change) == {"lr"}:
        change = {"lr": kept["lr"] * change["lr"]}
    return {**kept, **change}


def trial(
    kept: Recipe, change: Recipe, before: dict[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    """A change before its runs: what it costs, and the steps that its time has."""
    recipe = changed(kept, change)
    ratio = before["cost of an image"] if change.keys() <= FREE else cost(recipe, args.width)
    images = args.seconds * args.rate / ratio
    return {
        "change": {key: recipe[key] for key in change},
        "cost of an image": float(f"{ratio:.3g}"),
        "steps": max(2, round(images / images_a_step(recipe))),
        "runs": [],
    }


def fill(
    tried: list[tuple[Recipe, dict[str, Any]]], pool: Executor, args: argparse.Namespace, save: Any
) -> None:
    """Make the runs that trials lack."""
    jobs = [
        (entry, {"recipe": recipe, "seed": seed, "steps": entry["steps"], "args": args})
        for seed in args.seeds
        for recipe, entry in tried
        if seed not in [r["seed"] for r in entry["runs"]]
    ]
    futures = [(entry, pool.submit(run, job)) for entry, job in jobs]
    for entry, future in tqdm(futures, unit="run", leave=False):
        entry["runs"] = sorted([*entry["runs"], future.result()], key=lambda r: r["seed"])
        save()


def gains(entry: dict[str, Any], before: dict[str, Any]) -> list[float]:
    """The differences of accuracy, seed by seed."""
    was = {run["seed"]: run["accuracy"] for run in before["runs"]}
    return [run["accuracy"] - was[run["seed"]] for run in entry["runs"]]


def search(record: dict[str, Any], pool: Executor, args: argparse.Namespace, save: Any) -> None:
    """Round after round; what is in the record is not done again."""
    kept, best = (
        dict(START),
        record.setdefault("start", trial(START, {}, {"cost of an image": 1.0}, args)),
    )
    fill([(kept, best)], pool, args, save)
    for name in args.rounds:
        changes = ROUNDS[name]
        entries = record["rounds"].setdefault(name, [])
        have = [entry["change"] for entry in entries]
        for change in changes:
            recipe = changed(kept, change)
            if {key: recipe[key] for key in change} not in have:
                entries.append(trial(kept, change, best, args))
                save()
        ratio = best["cost of an image"]
        runs = [
            ({**kept, **entry["change"]}, entry)
            for entry in entries
            if entry["cost of an image"] < ratio or not entry["change"].keys() <= SAME
        ]
        fill(runs, pool, args, save)
        chosen = None
        for _, entry in runs:
            gained = gains(entry, best)
            entry["gain"] = round(statistics.mean(gained), 2)
            good = min(gained) > 0 and entry["gain"] >= args.least
            if good and (chosen is None or entry["gain"] > chosen["gain"]):
                chosen = entry
        for entry in entries:
            entry["kept"] = entry is chosen
        if chosen:
            kept, best = {**kept, **chosen["change"]}, chosen
        record["recipe"] = kept
        save()
        print(table({name: entries}), flush=True)


def table(rounds: dict[str, list[dict[str, Any]]]) -> str:
    lines = []
    for name, entries in rounds.items():
        for entry in entries:
            found = [f"{r['accuracy']:.1f}" for r in entry["runs"]] or ["only timed"]
            gain = f"{entry['gain']:+.1f}" if "gain" in entry else ""
            change = ", ".join(f"{key} {value}" for key, value in entry["change"].items())
            words = [name, change, f"{entry['cost of an image']:.2f}", str(entry["steps"])]
            words += [" ".join(found), gain, "kept" if entry.get("kept") else "dropped"]
            lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines)


def draw(record: dict[str, Any]) -> bytes:
    """The gains of all changes that were run: a bar for the mean, a dot for each seed."""
    from matplotlib.figure import Figure

    bars, best = [], record["start"]
    for name, entries in record["rounds"].items():
        ran = [entry for entry in entries if "gain" in entry]
        for entry in ran:
            change = ", ".join(f"{key} {value}" for key, value in entry["change"].items())
            bars.append((f"{name}: {change}", entry, gains(entry, best)))
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
    add("--seconds", type=float, default=60, help="training time of a run, on the whole machine")
    add("--rate", type=float, help="images a second of the start; by default it is measured")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--rounds", nargs="+", choices=ROUNDS, default=list(ROUNDS))
    add("--least", type=float, default=0.3, help="points that a change must gain")
    add("--width", type=int, default=16, help="of ResNet-9")
    add("--images", type=int, help="of the training split; by default all")
    add("--held-out", type=int, default=5000, help="of those, the last, to choose on")
    add("--jobs", type=int, default=1, help="runs side by side")
    add("--results", type=Path, default=RESULTS, help="where the record goes")
    args = parser.parse_args(argv)
    keep_freed_memory()
    path = args.results / "recipe.json"
    setup = {
        "seconds": args.seconds,
        "seeds": args.seeds,
        "least gain": args.least,
        "width": args.width,
        "training images": args.images or 50_000,
        "held out": args.held_out,
    }
    if path.exists():
        record = json.loads(path.read_text())
        if record["setup"] != setup:
            raise SystemExit(f"{path} is of another setup: move it away, or give another --results")
        args.rate = record["images per second"]
    else:
        if args.rate is None:
            args.rate = START["batch"] / min(seconds_a_step(START, args.width, 6))
        words = ["python", "eval/recipe.py"]
        record = {**provenance(shlex.join(words)), "setup": setup}
        record |= {"images per second": float(f"{args.rate:.4g}"), "rounds": {}}
    args.results.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        path.write_text(json.dumps(record, indent=2) + "\n")

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        search(record, pool, args, save)
    path.with_suffix(".png").write_bytes(draw(record))
    print(json.dumps(record["recipe"], indent=2))
    print(path)


if __name__ == "__main__":
    main()
