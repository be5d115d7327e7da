"""Protocols by data sets, for one backbone."""

import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sslkit import __version__
from sslkit.backbones import Backbone
from sslkit.data import load
from sslkit.evaluation.features import Features, extract
from sslkit.evaluation.knn import knn
from sslkit.evaluation.linear import linear
from sslkit.views import View

PROTOCOLS: dict[str, Callable[[Features, Features], dict[str, float]]] = {
    "knn": knn,
    "linear": linear,
}


def evaluate(
    backbone: Backbone,
    view: View,
    data: str,
    protocols: Sequence[str] = ("knn", "linear"),
    *,
    root: str | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Score a frozen backbone on the test split of a labelled data set.

    Args:
        backbone: on ``device``. view: images to normalised images.
        data: a name such as ``cifar10``. protocols: keys of ``PROTOCOLS``.
        limit: use the first ``limit`` training images only.

    Returns:
        "protocols" with each protocol's scores in percent, the numbers of images, seconds and
        versions, all plain data.

    Raises:
        ValueError: a data set or protocol that is not there, or data without labels.
        FileNotFoundError: the data is not on this machine and cannot be downloaded.
    """
    check_protocols(protocols)
    started = time.perf_counter()
    splits = []
    for split, most in (("train", limit), ("test", None)):
        dataset = load(data, split, root=root, limit=most)
        if dataset.classes is None:
            raise ValueError(f"{data!r} has no labels to evaluate with")
        say = f"{data} {split} features"
        splits.append(extract(backbone, dataset, view, device=device, progress=say))
    train, test = splits
    return {
        "data": data,
        "protocols": {name: PROTOCOLS[name](train, test) for name in protocols},
        "n_train": len(train.labels),
        "n_test": len(test.labels),
        "seconds": round(time.perf_counter() - started, 1),
        "device": str(device),
        "machine": platform.machine(),
        "versions": {
            "sslkit": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def check_protocols(protocols: Sequence[str]) -> None:
    """Raise ValueError unless every protocol is one that is there."""
    for name in protocols:
        if name not in PROTOCOLS:
            raise ValueError(f"no protocol named {name!r}; choose from {', '.join(PROTOCOLS)}")


def table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of results, a row each.

    >>> knn = {"knn": {"accuracy": 90}}
    >>> print(table([{"target": "runs/x", "data": "shapes", "n_train": 500, "protocols": knn}]))
    | backbone | data | training images | knn |
    | --- | --- | --- | --- |
    | runs/x | shapes | 500 | 90.0 |
    """
    protocols = list(dict.fromkeys(name for r in results for name in r["protocols"]))
    rows = [["backbone", "data", "training images", *protocols], ["---"] * (3 + len(protocols))]
    for r in results:
        scores = [r["protocols"].get(name, {}).get("accuracy") for name in protocols]
        about = [r["target"], r["data"], str(r["n_train"])]
        rows.append([*about, *("" if s is None else f"{s:.1f}" for s in scores)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
