"""The lecture's rows of metric learning, from random and from self-supervised weights.

    python eval/metric_learning.py --sets omniglot cars196 --seeds 0 1 2 --jobs 2

A loss's learning rate, and whether its embeddings have length 1, are chosen on one seed: trained
on half of the training classes, scored on the other half. Then every row is trained on all
training classes, as long as any other, and scored on the test classes. The record is
eval/results/metric_learning.json; what is in it is not run again, so the command goes on where it
was stopped, and other sets or seeds are added. `python eval/tables.py` puts it into the README.
"""

import argparse
import json
import logging
import multiprocessing
import shlex
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from measure import pretrained
from metric_rows import CANDIDATES, ROWS, SETS, best, method_of
from records import RESULTS, at_least, commit, provenance, read_record
from tqdm import tqdm

from sslkit.data import ArrayDataset, DataModule, gather, load_splits
from sslkit.evaluation import Features, extract, recall_at_k, retrieval
from sslkit.methods import MetricLearning
from sslkit.training import keep_freed_memory, load_backbone, write_atomically

Job = dict[str, Any]
Cell = dict[str, Any]
STARTS = ("random weights", "SimCLR")
POINTS = 4  # of a curve


def run(job: Job) -> Cell:
    """Train a row and score it; in a process of its own."""
    quiet(job["threads"])
    started = time.perf_counter()
    row, setting = ROWS[job["row"]], SETS[job["set"]]
    pl.seed_everything(job["seed"], verbose=False)
    model = method_of(row, setting, job["chosen"])
    if job["start"]:
        model.start_from(load_backbone(job["start"])[0])
    data = DataModule(
        job["set"],
        size=setting.pixels,
        batch_size=setting.batch,
        per_class=setting.per_class,
        held_out=setting.held_out if row.judges_itself else 0,
    )
    data.setup("fit")
    test = test_images(job["set"], setting.pixels)
    if job["half"]:
        data.dataset, test = halves(data.dataset)
    watch = Watch(test, job["steps"] // POINTS)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=job["steps"],
        max_epochs=-1,
        callbacks=[] if job["half"] else [watch],
        **dict.fromkeys(OFF, False),
    )
    trainer.fit(model, datamodule=data)
    found = scores(model.backbone, model, test)
    return {
        "seed": job["seed"],
        **found,
        "curve": [*watch.curve, [job["steps"], found["recall@1"]]],
        "watched": watch.watched,
        "seconds": round(time.perf_counter() - started, 1),
    }


OFF = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")


class Watch(pl.Callback):
    """Recall@1 of the test classes now and then, and the means of what a method logs by then."""

    def __init__(self, test: ArrayDataset, every: int) -> None:
        self.test, self.every = test, max(1, every)
        self.curve: list[list[float]] = []
        self.watched: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            if trainer.global_step < trainer.max_steps:
                features = features_of(module.backbone, module, self.test)
                score = round(recall_at_k(*features, ks=(1,))[1], 2)
                self.curve.append([trainer.global_step, score])
            logged = trainer.callback_metrics.items()
            self.watched.append(
                {key.removeprefix("train/"): round(float(value), 4) for key, value in logged}
            )


def untrained(job: Job) -> Cell:
    """The scores of the weights that a row begins from, without an embedding."""
    quiet(job["threads"])
    setting = SETS[job["set"]]
    pl.seed_everything(job["seed"], verbose=False)
    model = method_of(ROWS["triplet"], setting, {"lr": 1.0, "normalize": True})
    if job["start"]:
        model.start_from(load_backbone(job["start"])[0])
    test = test_images(job["set"], setting.pixels)
    return {"seed": job["seed"], **scores(model.backbone.backbone, model, test)}


def scores(
    backbone: torch.nn.Module, model: MetricLearning, test: ArrayDataset
) -> dict[str, float]:
    """Recall@K, MAP@R, NMI and F1 of a labelled set, in percent."""
    found = retrieval(features_of(backbone, model, test))
    return {name: round(score, 2) for name, score in found.items()}


def features_of(backbone: torch.nn.Module, model: MetricLearning, test: ArrayDataset) -> Features:
    return extract(backbone, test, model.eval_view, device=str(model.device))


def halves(data: Any) -> tuple[ArrayDataset, ArrayDataset]:
    """A set by its classes: a fixed draw of half of them, and the others."""
    classes = int(data.labels.max()) + 1
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(0))
    first = torch.isin(data.labels, order[: classes // 2])
    parts = []
    for rows in (first, ~first):
        labels = data.labels[rows].unique(return_inverse=True)[1]
        parts.append(ArrayDataset(data.images[rows], labels))
    return parts[0], parts[1]


@cache
def test_images(name: str, pixels: int) -> ArrayDataset:
    """The test split, decoded once."""
    data = load_splits(name, size=pixels).test
    return ArrayDataset(*gather(data, torch.arange(len(data))))


def quiet(threads: int) -> None:
    keep_freed_memory()
    torch.set_num_threads(threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


class Table:
    """The cells of a record, and the runs that it lacks."""

    def __init__(
        self, record: dict[str, Any], pool: Executor, job: Job, save: Callable[[], None]
    ) -> None:
        self.record, self.pool, self.job, self.save = record, pool, job, save

    def choose(self, starts: dict[tuple[str, str], str | None], rows: list[str]) -> None:
        """How each row's loss is trained, by Recall@1 on classes that are held out."""
        jobs = []
        for name, start in starts:
            found = self.part(name, start).setdefault("choice", {})
            for loss in dict.fromkeys(ROWS[row].loss for row in rows):
                tried = found.setdefault(loss, [])
                jobs += [
                    (tried, run, self.of(name, starts[name, start], loss, candidate, half=True))
                    for candidate in CANDIDATES[loss]
                    if all(cell["candidate"] != candidate for cell in tried)
                ]
        self.make("choosing", jobs)

    def fill(
        self, starts: dict[tuple[str, str], str | None], rows: list[str], seeds: list[int]
    ) -> None:
        """Every row and seed."""
        jobs = []
        for seed in seeds:
            for name, start in starts:
                part, weights = self.part(name, start), starts[name, start]
                before = part.setdefault("before", [])
                if all(cell["seed"] != seed for cell in before):
                    jobs.append((before, untrained, self.of(name, weights, "triplet", {}, seed)))
                for row in rows:
                    cells = part.setdefault("rows", {}).setdefault(row, [])
                    chosen = best(part["choice"][ROWS[row].loss])
                    if all(cell["seed"] != seed for cell in cells):
                        jobs.append((cells, run, self.of(name, weights, row, chosen, seed)))
        self.make("rows", jobs)

    def part(self, name: str, start: str) -> dict[str, Any]:
        return self.record["sets"].setdefault(name, {}).setdefault(start, {})

    def of(
        self,
        name: str,
        start: str | None,
        row: str,
        chosen: Cell,
        seed: int = 0,
        half: bool = False,
    ) -> Job:
        steps = self.record["setup"]["steps to choose" if half else "steps"]
        job = {"set": name, "start": start, "row": row, "chosen": chosen, "seed": seed}
        return {**self.job, **job, "half": half, "steps": steps}

    def make(self, what: str, jobs: list[tuple[list[Cell], Callable[[Job], Cell], Job]]) -> None:
        """Run jobs side by side; each goes into its list of cells as soon as it is there."""
        futures = {self.pool.submit(do, job): (cells, job) for cells, do, job in jobs}
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc=what, unit="run"):
                (cells, job), made = futures[future], future.result()
                about = {"candidate": job["chosen"]} if job["half"] else {}
                cells.append({**about, **made, "commit": commit()})
                cells.sort(key=lambda cell: cell["seed"])
                self.save()
        except BaseException:
            self.pool.shutdown(wait=False, cancel_futures=True)
            raise


def arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=list(SETS))
    add("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    add("--seeds", nargs="+", type=at_least(0), default=[0, 1, 2])
    add("--steps", type=at_least(POINTS), default=200, help="of a row, batches of 64")
    add("--steps-to-choose", type=at_least(1), default=100, help="of a candidate")
    add("--jobs", type=at_least(1), default=1, help="runs side by side")
    add("--threads", type=at_least(1), default=1, help="of each run")
    add(
        "--epochs", type=at_least(1), help="of the self-supervised runs, in place of their config's"
    )
    add("--out", type=Path, default=Path("runs"), help="where the self-supervised runs go")
    add("--results", type=Path, default=RESULTS, help="folder of the record")
    return parser, parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    parser, args = arguments(argv)
    path = args.results / "metric_learning.json"
    setup = {"steps": args.steps, "steps to choose": args.steps_to_choose}
    record = {**provenance(""), "setup": setup, "sets": {}}
    if path.exists():
        try:
            old = read_record(path, "setup", "hardware", "versions", "sets")
        except ValueError as error:
            parser.error(str(error))
        for key in ("setup", "hardware", "versions"):
            if old[key] != record[key]:
                parser.error(f"{path} is of other {key}: move it away, or give another --results")
        record = old

    def save() -> None:
        record["command"] = command(record)
        args.results.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())

    starts = {
        (name, start): self_supervised(args, name) if start == "SimCLR" else None
        for name in args.sets
        for start in args.starts
    }
    for (name, start), folder in starts.items():
        if folder:
            card = load_backbone(folder)[1]
            about = {key: card.get(key) for key in ("method", "step", "commit")}
            record["sets"].setdefault(name, {}).setdefault(start, {})["weights"] = about
    job = {"threads": args.threads}
    context = multiprocessing.get_context("spawn")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the pool outlives its parent
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        table = Table(record, pool, job, save)
        table.choose(starts, args.rows)
        table.fill(starts, args.rows, args.seeds)
    print(path)


def self_supervised(args: argparse.Namespace, name: str) -> str:
    """The folder of a set's self-supervised run, trained if it is not there."""
    config = SETS[name].self_supervised
    folder = args.out / f"{config}-seed0"
    if not (folder / "backbone.safetensors").exists():
        options = ["--wandb", "disabled"]
        options += ["--trainer.max_epochs", str(args.epochs)] if args.epochs else []
        pretrained(argparse.Namespace(config=config, out=args.out, options=options), 0)
    return str(folder)


def command(record: dict[str, Any]) -> str:
    """What leaves all of a record."""
    setup, sets = record["setup"], record["sets"]
    parts = [part for starts in sets.values() for part in starts.values()]
    cells = [cell for part in parts for found in part.get("rows", {}).values() for cell in found]
    words = ["python", "eval/metric_learning.py", "--sets", *sets]
    words += ["--seeds", *map(str, sorted({cell["seed"] for cell in cells}) or [0])]
    words += ["--steps", str(setup["steps"]), "--steps-to-choose", str(setup["steps to choose"])]
    return shlex.join(words)


if __name__ == "__main__":
    main()
