"""The lecture's rows of metric learning, from random and from self-supervised weights.

    python eval/metric_learning.py --sets omniglot cars196 --seeds 0 1 2 --jobs 2

First is chosen, on one seed and half of the training classes, by Recall@1 on their other half: for
each loss its learning rate, and whether its embeddings have length 1 where its paper leaves it
open; then for DAML and the samplers, which take that of their loss, an option of their own. Cars196
takes all but the rates of the losses from Omniglot. Then every row is trained on
all training classes for as many steps, and scored on the test classes. A self-supervised run has
seen all training images, without their labels. The record is eval/results/metric_learning.json;
what is in it is not run again, so the command goes on where it was stopped, and other sets or seeds
are added. `python eval/tables.py` puts it into docs/metric_learning.md.
"""

import argparse
import hashlib
import json
import multiprocessing
import shlex
import signal
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from measure import pretrained
from metric_rows import ROWS, SETS, STARTS, Candidate, best, candidates, setup
from metric_runs import POINTS, Cell, Job, about_data, run, untrained
from records import RESULTS, at_least, provenance, read_record
from tqdm import tqdm

from sslkit.training import load_backbone, write_atomically

Part = tuple[str, str]  # a set, and the weights that its rows begin from


class Table:
    """The cells of a record, and the runs that it lacks."""

    def __init__(
        self,
        record: dict[str, Any],
        weights: dict[Part, str | None],
        pool: Executor,
        save: Callable[[], None],
    ) -> None:
        self.record, self.weights, self.pool, self.save = record, weights, pool, save

    def choose(self, rows: list[str]) -> None:
        """How the losses of these rows are trained, then the options of the rows themselves."""
        losses = dict.fromkeys(ROWS[row].loss for row in rows)
        others = [row for row in rows if ROWS[row].knobs]
        for name in dict.fromkeys(name for name, _ in self.weights):
            parts = [part for part in self.weights if part[0] == name]
            for what, some in (("losses", losses), ("options", others)):
                jobs = []
                for part in parts:
                    found = self.of(part).setdefault("choice", {})
                    for row in some:
                        if not (all_tries := self.candidates(part, row)):
                            continue
                        tried, loss = found.setdefault(row, []), ROWS[row].loss
                        given = {} if what == "losses" else best(found[loss])
                        for tries in all_tries:
                            if all(cell["candidate"] != tries for cell in tried):
                                job = self.job(part, row, {**given, **tries}, 0)
                                jobs.append((tried, run, {**job, "half": True, "tried": tries}))
                self.make(f"{name}, choosing {what}", jobs)

    def fill(self, rows: list[str], seeds: list[int]) -> None:
        """Every row and seed, and the weights that they begin from."""
        jobs = []
        for seed in seeds:
            for part, weights in self.weights.items():
                before = self.of(part).setdefault("before", [])
                if all(cell["seed"] != seed for cell in before) and not (weights and before):
                    jobs.append((before, untrained, self.job(part, "triplet", {}, seed)))
                for row in rows:
                    cells = self.of(part).setdefault("rows", {}).setdefault(row, [])
                    if all(cell["seed"] != seed for cell in cells):
                        jobs.append((cells, run, self.job(part, row, self.chosen(part, row), seed)))
            self.make(f"seed {seed}", jobs)
            jobs = []

    def chosen(self, part: Part, row: str) -> dict[str, Any]:
        choice = self.of(part)["choice"]
        option = (self.known(part, row) or best(choice[row])) if ROWS[row].knobs else {}
        return {**best(choice[ROWS[row].loss]), **option}

    def candidates(self, part: Part, row: str) -> list[Candidate]:
        return candidates(row, part[1], self.known(part, row))

    def known(self, part: Part, row: str) -> Candidate | None:
        """What was chosen for a row on the set that this one is like."""
        like = SETS[part[0]].like
        return best(self.record["sets"][like][part[1]]["choice"][row]) if like else None

    def of(self, part: Part) -> dict[str, Any]:
        name, start = part
        return self.record["sets"].setdefault(name, {}).setdefault(start, {})

    def job(self, part: Part, row: str, chosen: dict[str, Any], seed: int) -> Job:
        threads, steps = (self.record["setup"][key] for key in ("threads", "steps"))
        job = {"set": part[0], "start": part[1], "weights": self.weights[part], "row": row}
        return {
            **job,
            "chosen": chosen,
            "seed": seed,
            "half": False,
            "threads": threads,
            "steps": steps,
        }

    def make(self, what: str, jobs: list[tuple[list[Cell], Callable[[Job], Cell], Job]]) -> None:
        """Run jobs side by side; each goes into its list of cells as soon as it is there."""
        if not jobs:
            return
        futures = {self.pool.submit(do, job): (cells, job) for cells, do, job in jobs}
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc=what, unit="run"):
                made = future.result()
                self.keep(*futures.pop(future), made)
        except BaseException:
            self.pool.shutdown(wait=False, cancel_futures=True)
            for future, place in futures.items():
                if future.done() and not future.cancelled() and future.exception() is None:
                    self.keep(*place, future.result())
            raise

    def keep(self, cells: list[Cell], job: Job, made: Cell) -> None:
        cells.append(made)
        if job["half"]:
            tried = self.candidates((job["set"], job["start"]), job["row"])
            cells.sort(key=lambda cell: tried.index(cell["candidate"]))
        else:
            cells.sort(key=lambda cell: cell["seed"])
        self.save()


def arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=list(SETS))
    add("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    add("--seeds", nargs="+", type=at_least(0), default=[0, 1, 2])
    add("--steps", type=at_least(POINTS), default=200, help="of a run, batches of 64")
    add("--jobs", type=at_least(1), default=1, help="runs side by side")
    add("--threads", type=at_least(1), default=1, help="of each run")
    add("--epochs", type=at_least(1), help="of the self-supervised runs, for their config's")
    add("--out", type=Path, default=Path("runs"), help="where the self-supervised runs go")
    add("--results", type=Path, default=RESULTS, help="folder of the record")
    args = parser.parse_args(argv)
    for name in ("sets", "starts", "rows", "seeds"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    args.sets.sort(key=lambda name: SETS[name].like is not None)
    return parser, args


def main(argv: list[str] | None = None) -> None:
    parser, args = arguments(argv)
    path = args.results / "metric_learning.json"
    args.results.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            fill(parser, args, path)
    except KeyboardInterrupt:
        raise SystemExit("stopped; finished runs are kept: the same command goes on") from None
    except Timeout:
        parser.error(f"{path} is being filled by another run: wait for it")


def fill(parser: argparse.ArgumentParser, args: argparse.Namespace, path: Path) -> None:
    """The record at a path, or what it lacks of what is asked for."""
    given = {"steps": args.steps, "threads": args.threads, "epochs": args.epochs, **setup()}
    record = {**provenance(""), "setup": json.loads(json.dumps(given)), "data": {}, "sets": {}}
    if path.exists():
        try:
            old = read_record(path, *record)
        except ValueError as error:
            parser.error(str(error))
        for key in ("setup", "hardware", "versions"):
            if old[key] != record[key]:
                parser.error(f"{path} is of other {key}: move it away, or give another --results")
        record = old

    def save() -> None:
        record["command"] = command(record, args.jobs)
        write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())

    def same(kept: dict[str, Any], key: str, found: Any, what: str) -> None:
        if kept.setdefault(key, found) != found:
            parser.error(f"{path} is of {what} {kept[key]}, not {found}: move it away")

    for name in args.sets:
        try:
            found = about_data(name)
        except (FileNotFoundError, ValueError) as error:
            parser.error(f"{name}: {error}")
        same(record["data"], name, found, f"{name} with")
        if (like := SETS[name].like) and like not in args.sets and lacking(record, like, args):
            parser.error(f"--sets {name} takes what is chosen on {like}: add {like}")
    weights: dict[Part, str | None] = {}
    for name in args.sets:
        for start in args.starts:
            weights[name, start] = None
            if start != STARTS[0]:
                folder = weights[name, start] = self_supervised(args, name)
                kept = record["sets"].setdefault(name, {}).setdefault(start, {})
                same(kept, "weights", about_weights(folder), f"a {start} run on {name},")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the pool outlives its parent
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        table = Table(record, weights, pool, save)
        table.choose(args.rows)
        table.fill(args.rows, args.seeds)
    print(path)


def lacking(record: dict[str, Any], name: str, args: argparse.Namespace) -> bool:
    """Whether a record lacks a choice on a set that the rows asked for take."""
    wanted = {ROWS[row].loss for row in args.rows} | {r for r in args.rows if ROWS[r].knobs}
    parts = record["sets"].get(name, {})
    choices = [parts.get(start, {}).get("choice", {}) for start in args.starts]
    return any(not choice.get(row) for choice in choices for row in wanted)


def self_supervised(args: argparse.Namespace, name: str) -> str:
    """The folder of a set's self-supervised run, trained if it is not there."""
    config = SETS[name].self_supervised
    folder = args.out / f"{config}-seed0"
    if not (folder / "backbone.safetensors").exists():
        options = ["--wandb", "disabled"]
        options += ["--trainer.max_epochs", str(args.epochs)] if args.epochs else []
        pretrained(argparse.Namespace(config=config, out=args.out, options=options), 0)
    return str(folder)


def about_weights(folder: str) -> dict[str, Any]:
    """What tells a run's weights from any other."""
    card = load_backbone(folder)[1]
    file = (Path(folder) / "backbone.safetensors").read_bytes()
    about = {key: card.get(key) for key in ("method", "step", "commit")}
    return {**about, "sha256": hashlib.sha256(file).hexdigest()[:16]}


def command(record: dict[str, Any], jobs: int) -> str:
    """What makes the same record: its sets, weights, rows and seeds."""
    setup, sets = record["setup"], record["sets"]
    parts = [part for starts in sets.values() for part in starts.values()]
    rows = [row for row in ROWS if any(part.get("rows", {}).get(row) for part in parts)]
    cells = [cell for part in parts for found in part.get("rows", {}).values() for cell in found]
    starts = [start for start in STARTS if any(start in found for found in sets.values())]
    words = ["python", "eval/metric_learning.py", "--sets", *sets]
    words += [] if starts == list(STARTS) else ["--starts", *starts]
    words += [] if rows in ([], list(ROWS)) else ["--rows", *rows]
    words += ["--seeds", *map(str, sorted({cell["seed"] for cell in cells}) or [0])]
    for key, default in (("steps", 200), ("threads", 1), ("epochs", None)):
        words += [] if setup[key] == default else [f"--{key}", str(setup[key])]
    return shlex.join([*words, *(["--jobs", str(jobs)] if jobs > 1 else [])])


if __name__ == "__main__":
    main()
