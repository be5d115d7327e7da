"""Protocols by data sets, for one backbone."""

import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from sslkit import __version__
from sslkit.backbones import Backbone
from sslkit.data import load
from sslkit.evaluation.features import Features, check_layers, extract, extract_layers
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
    """Score a frozen backbone's features on the test split of a labelled data set.

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

    def features(dataset: Dataset, say: str) -> dict[str, Features]:
        return {"": extract(backbone, dataset, view, device=device, progress=say)}

    (result,) = _scored(features, data, protocols, root, limit)
    return {**result, **_made_with(device)}


def evaluate_layers(
    backbone: Backbone,
    view: View,
    data: str,
    protocols: Sequence[str] = ("knn", "linear"),
    *,
    layers: Sequence[str] | None = None,
    root: str | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
) -> list[dict[str, Any]]:
    """As :func:`evaluate`, for each of some layers: of a pretext task the last is rarely the best.

    Args:
        layers: names out of ``backbone.layers``, by default all; their features are those of
            :func:`extract_layers`.

    Returns:
        What :func:`evaluate` returns, for each layer, with its name as "layer", and "layers",
        the names of all that the backbone has, in order.
    """
    chosen = backbone.layers if layers is None else layers
    check_layers(backbone, chosen)

    def features(dataset: Dataset, say: str) -> dict[str, Features]:
        return extract_layers(backbone, dataset, view, chosen, device=device, progress=say)

    results = _scored(features, data, protocols, root, limit)
    return [
        {"layer": layer, "layers": list(backbone.layers), **result, **_made_with(device)}
        for layer, result in zip(chosen, results, strict=True)
    ]


def _scored(
    features: Callable[[Dataset, str], dict[str, Features]],
    data: str,
    protocols: Sequence[str],
    root: str | None,
    limit: int | None,
) -> list[dict[str, Any]]:
    """A result for each of the features that are extracted of both splits."""
    check_protocols(protocols)
    started = time.perf_counter()
    splits = []
    for split, most in (("train", limit), ("test", None)):
        dataset = load(data, split, root=root, limit=most)
        if dataset.classes is None:
            raise ValueError(f"{data!r} has no labels to evaluate with")
        splits.append(features(dataset, f"{data} {split} features"))
    results = []
    for train, test in zip(*(split.values() for split in splits), strict=True):
        scores = {name: PROTOCOLS[name](train, test) for name in protocols}
        results.append(
            {
                "data": data,
                "protocols": scores,
                "n_train": len(train.labels),
                "n_test": len(test.labels),
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    return results


def _made_with(device: torch.device | str) -> dict[str, Any]:
    return {
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
    layered = ["layer"] if any("layer" in r for r in results) else []
    head = ["backbone", *layered, "data", "training images", *protocols]
    rows = [head, ["---"] * len(head)]
    for r in results:
        scores = [r["protocols"].get(name, {}).get("accuracy") for name in protocols]
        about = [r["target"], *(r.get(key, "") for key in layered), r["data"], str(r["n_train"])]
        rows.append([*about, *("" if s is None else f"{s:.1f}" for s in scores)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
