"""What the scripts of eval/ share: options, provenance and records of what was measured."""

import argparse
import json
import math
import shlex
import subprocess
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("sslkit", "torch", "torchvision", "pytorch-lightning", "kornia", "faiss-cpu")


def provenance(command: str) -> dict[str, Any]:
    """What stands beside every number: when, by what, on what it was measured."""
    return {
        "command": command,
        "date": date.today().isoformat(),
        "commit": commit(),
        "hardware": hardware(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def at_least(least: float, kind: type = int) -> Callable[[str], Any]:
    """The type of an option that is a finite number, this or more."""

    def number(text: str) -> Any:
        if not least <= (value := kind(text)) < math.inf:
            raise argparse.ArgumentTypeError(f"must be {least} or more, not {text}")
        return value

    number.__name__ = kind.__name__
    return number


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """A record that another run has left.

    Raises:
        ValueError: the file is no such record.
    """
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no record, not even JSON: move it away") from error
    if not isinstance(record, dict) or not record.keys() >= set(keys):
        raise ValueError(f"{path} is no record with {', '.join(keys)}: move it away")
    return record


def commit() -> str:
    """The commit measured, with `-dirty` where the tree differs from it, results apart."""

    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], cwd=RESULTS.parent, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "-uno", "--", ":/", ":(top,exclude)eval/results")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


def hardware() -> str:
    """The accelerator's name, or the processor's with its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "CPU")
    return f"{name}, {torch.get_num_threads()} cores"


def command_line(script: str, args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """What measures the same elsewhere: the options given, less the folder of the record."""
    words = ["python", script]
    for key, value in vars(args).items():
        if key != "results" and value != parser.get_default(key):
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{key.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def held_out_cifar10(images: int | None, held_out: int) -> tuple[Any, Any, Any]:
    """The first training images of CIFAR-10, of those some that vote, and the last, held out."""
    from sslkit.data import ArrayDataset, load  # which a peer's process does not wait for

    whole = load("cifar10", "train", limit=images)
    end = len(whole) - held_out
    parts = (slice(0, end), slice(0, min(10_000, end)), slice(end, None))
    train, bank, asked = (ArrayDataset(whole.images[part], whole.labels[part]) for part in parts)
    return train, bank, asked
