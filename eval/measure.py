"""Pretrain a config once a seed, score it beside random weights, and record all of it.

    python eval/measure.py simclr_cifar10_cpu --data cifar10 --seeds 0 1 2

The result is eval/results/CONFIG.json; options after `--` go to `sslkit pretrain`. A run that is
finished is not repeated, one that was stopped goes on; either only with the options, the commit
and the versions that it began with, which are the ones recorded. `python eval/tables.py` then
rewrites the README's table.
"""

import argparse
import csv
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from records import RESULTS, provenance

RETRIEVAL = ("recall@1", "nmi", "f1")  # what is kept of that protocol


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="After --: options of sslkit pretrain."
    )
    parser.add_argument("config", help="a config's short name")
    parser.add_argument("--data", nargs="+", required=True, help="labelled data sets to score on")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--protocol", nargs="+", default=["knn", "linear"], help="of the scores")
    parser.add_argument("--limit", type=int, help="training images that the scores use")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    argv = sys.argv[1:]
    end = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:end])
    args.options = argv[end + 1 :]
    runs = [measure(args, seed) for seed in args.seeds]
    config = yaml.safe_load((Path(runs[0]["folder"]) / "config.yaml").read_text())
    record = {
        **runs[0]["provenance"],
        "command": command(args),
        "config": {k: v for k, v in config.items() if k not in ("name", "out", "seed_everything")},
        "runs": [{k: v for k, v in r.items() if k not in ("folder", "provenance")} for r in runs],
    }
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"{args.config}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(path)


def command(args: argparse.Namespace) -> str:
    """What measures the same elsewhere: the arguments less the folders of this machine."""
    words = ["python", "eval/measure.py", args.config, "--data", *args.data]
    words += ["--seeds", *map(str, args.seeds)] if args.seeds != [0] else []
    given = args.protocol != ["knn", "linear"]
    words += ["--protocol", *args.protocol] if given else []
    words += ["--limit", str(args.limit)] if args.limit else []
    return shlex.join([*words, *(["--", *args.options] if args.options else [])])


def measure(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One seed: its training time and its scores, in percent."""
    folder, kept = pretrained(args, seed)
    limit = ["--limit", str(args.limit)] if args.limit else []
    protocols = ["--protocol", *args.protocol]
    sslkit("evaluate", str(folder), "random", "--data", *args.data, *protocols, *limit)
    scores: dict[str, Any] = {"trained": {}, "random": {}}
    training_images = {}
    for data in args.data:
        stem = f"{data}-limit{args.limit}" if args.limit else data
        for suffix in ("", "-random"):
            result = json.loads((folder / "evaluation" / f"{stem}{suffix}.json").read_text())
            found = scores[result["weights"]].setdefault(data, {})
            for name in args.protocol:
                of = result["protocols"][name]
                keys = (name,) if "accuracy" in of else RETRIEVAL
                found |= {key: of.get(key, of.get("accuracy")) for key in keys}
            training_images[data] = result["n_train"]
    return {
        "folder": str(folder),
        "provenance": {k: v for k, v in kept["began"].items() if k != "options"},
        "seed": seed,
        "pretraining_seconds": round(kept["seconds"]),
        "images_per_second": round(throughput(folder)),
        "epochs": epochs(folder),
        "training_images_of_the_scores": training_images,
        "accuracy": scores,
    }


def pretrained(args: argparse.Namespace, seed: int) -> tuple[Path, dict[str, Any]]:
    """The run folder of one seed, trained or trained on, and how it began and how long it took."""
    folder = args.out / f"{args.config}-seed{seed}"
    began = {"options": args.options, **provenance("")}
    notes = folder.with_name(f"{folder.name}.measure.json")
    if folder.exists() and not notes.exists():
        raise SystemExit(f"{folder} is a run of something else: give another --out")
    kept = json.loads(notes.read_text()) if notes.exists() else {"began": began, "seconds": 0.0}
    for key in ("options", "commit", "hardware", "versions"):
        if kept["began"][key] != began[key]:
            raise SystemExit(
                f"{folder} began with {key} {kept['began'][key]}, not {began[key]}: go on as it "
                "began, or give another --out"
            )
    if kept.get("running"):
        raise SystemExit(f"{folder} was killed, its time is unknown: remove it and {notes.name}")
    if not (folder / "backbone.safetensors").exists():
        command = ["pretrain", "--config", args.config, "--seed_everything", str(seed)]
        command += ["--name", folder.name, "--out", str(args.out), *args.options]
        if notes.exists() and folder.exists():
            command = ["pretrain", "--resume", str(folder)]
        args.out.mkdir(parents=True, exist_ok=True)
        notes.write_text(json.dumps({**kept, "running": True}))
        started = time.perf_counter()
        try:
            sslkit(*command)
        finally:
            kept["seconds"] += time.perf_counter() - started
            notes.write_text(json.dumps(kept))
    return folder, kept


def sslkit(*command: str) -> None:
    """The command line, as a user would run it."""
    subprocess.run([sys.executable, "-m", "sslkit", *command], check=True)


def throughput(folder: Path) -> float:
    """The median of what the run logged."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row["images_per_second"] for row in csv.DictReader(file)]
    return statistics.median(float(value) for value in rows if value)


def epochs(folder: Path) -> list[dict[str, float]]:
    """What the run logged last in each epoch: its loss, learning rate, online kNN, and so on."""
    last: dict[int, dict[str, float]] = {}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            values = {k: float(v) for k, v in row.items() if v and k not in ("step", "epoch")}
            epoch = last.setdefault(int(row["epoch"]), {"epoch": int(row["epoch"])})
            epoch.update({k: float(f"{v:.4g}") for k, v in values.items()})
    return list(last.values())


if __name__ == "__main__":
    main()
