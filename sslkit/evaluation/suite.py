"""Protocols by data sets, for one backbone."""

import hashlib
import platform
import time
from collections.abc import Callable, Sequence
from functools import cache as once
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from sslkit import __version__
from sslkit.backbones import Backbone
from sslkit.data import Splits, load_splits
from sslkit.data import about as about_set
from sslkit.evaluation.cache import cached_features
from sslkit.evaluation.features import Features, check_layers
from sslkit.evaluation.fingerprint import fingerprint
from sslkit.evaluation.processes import largest, rank
from sslkit.evaluation.protocols import Protocol, Task, protocols_of
from sslkit.views import EvaluationView

Result = dict[str, Any]


def evaluate(
    backbone: Backbone,
    view: EvaluationView,
    data: str,
    protocols: Sequence[str | Protocol] = ("knn", "linear"),
    **options: Any,
) -> Result:
    """Score a backbone on the test split of a labelled data set; it stays as it is, bit for bit.

    Args:
        backbone: on ``device``. view: images to normalised images.
        data: a name of ``load_splits``, such as ``cifar10`` or ``folder:DIR``.
        protocols: keys of ``PROTOCOLS``, or what ``protocols_of`` returns.
        options: as of :func:`evaluate_layers`.

    Returns:
        Plain data: "data", its "title", "metric" and what "differs" from the published set,
        "protocols" with each one's scores in percent beside its id and seconds, the numbers of
        images, "fingerprint" of weights, images and view, and versions.

    Raises:
        ValueError: a data set or protocol that is not there, or that cannot be scored.
        FileNotFoundError: the data is not on this machine and cannot be downloaded.
    """
    (result,) = evaluate_layers(backbone, view, data, protocols, layers=None, **options)
    return result


def evaluate_layers(
    backbone: Backbone,
    view: EvaluationView,
    data: str,
    protocols: Sequence[str | Protocol] = ("knn", "linear"),
    *,
    layers: Sequence[str] | None = (),
    root: str | None = None,
    limit: int | None = None,
    device: torch.device | str = "cpu",
    cache: str | Path | None = None,
    before: Sequence[Result] = (),
    keep: Callable[[Result, str], None] = lambda result, protocol: None,
    failures: bool = False,
    distributed: bool = False,
) -> list[Result]:
    """As :func:`evaluate`, for each of some layers: of a pretext task the last is rarely the best.

    Args:
        layers: names out of ``backbone.layers``, by default all; their features are those of
            :func:`extract_layers`. None for the features of the backbone.
        root: where the data lies. limit: use the first ``limit`` training images only.
        cache: a folder for features and for what long protocols have finished, both found again
            by the fingerprint of weights, images and view.
        before: earlier results of the same data; a score of the same protocol id and fingerprint
            is taken from there.
        keep: called with the result so far and the protocol, whenever a score is there.
        failures: put the line of a protocol that cannot be scored into "failed", and go on.
        distributed: every process of torch.distributed calls this; images are shared among them,
            and the first alone scores, so that only its results have scores.

    Returns:
        What :func:`evaluate` returns, for each layer, with its name as "layer", and "layers",
        the names of all that the backbone has, in order.
    """
    chosen = [p if isinstance(p, Protocol) else protocols_of([p])[0] for p in protocols]
    if layers is not None:
        layers = list(layers) or list(backbone.layers)
        check_layers(backbone, layers)
        if whole := [p.name for p in chosen if p.images]:
            raise ValueError(f"{whole[0]} trains the whole network: it has no score of a layer")
    splits = load_splits(data, root=root, size=view.size, limit=limit)
    both = (splits.train, splits.test)
    prints = [_fingerprint(backbone, split, view, device) for split in both]
    about = {**_about(data, splits), "fingerprints": prints, **_made_with(device)}
    of_layers = [{"layer": name, "layers": list(backbone.layers)} for name in layers or ()]
    results = [{**named, **about, "protocols": {}, "failed": {}} for named in of_layers or [{}]]
    for result in results:
        result["protocols"] = _found(result, before, chosen)

    @once
    def features() -> list[dict[str, Features]]:
        return [
            cached_features(
                cache,
                backbone,
                split,
                view,
                layers=layers,
                device=device,
                distributed=distributed,
                about={"data": data, "split": name},
                progress=f"{data} {name} features",
            )
            for name, split in zip(("train", "test"), both, strict=True)
        ]

    if distributed:
        _extract_together(features, results, chosen, device)
        if rank() > 0:
            return results
    for protocol in chosen:
        for result in results:
            if protocol.name not in result["protocols"]:
                layer = result.get("layer", "")
                task = Task(
                    backbone,
                    view,
                    splits,
                    features=lambda layer=layer: tuple(split[layer] for split in features()),
                    device=device,
                    folder=_folder(cache, protocol, prints),
                )
                _score(protocol, task, result, failures)
            keep(result, protocol.name)
    return results


def absent(data: str, why: str) -> Result:
    """The result of a data set that is not there: its name and how to get it, and no score.

    >>> absent("dtd", "dtd is not at data/dtd: ...")["title"]
    'DTD'
    """
    title, metric, _ = about_set(data)
    about = {"data": data, "title": title, "metric": metric, "differs": None}
    return {**about, "n_train": None, "n_test": None, "protocols": {}, "failed": {}, "absent": why}


def _fingerprint(
    backbone: Backbone, split: Dataset, view: EvaluationView, device: torch.device | str
) -> str | None:
    """None for images that cannot be told from others; their scores are never taken over."""
    try:
        return fingerprint(backbone, split, view, device=device)
    except ValueError:
        return None


def _found(
    result: Result, before: Sequence[Result], chosen: Sequence[Protocol]
) -> dict[str, dict[str, Any]]:
    """The scores in earlier results of the same weights, images, view and layer."""
    found: dict[str, dict[str, Any]] = {}
    for earlier in before:
        alike = all(earlier.get(key) == result.get(key) for key in ("fingerprints", "layer"))
        if alike and None not in result["fingerprints"]:
            found |= earlier["protocols"]
    ids = {protocol.name: protocol.id for protocol in chosen}
    return {k: v for k, v in found.items() if ids.get(k) in (None, v.get("protocol"))}


def _extract_together(
    features: Callable[[], Any],
    results: Sequence[Result],
    chosen: Sequence[Protocol],
    device: torch.device | str,
) -> None:
    """Every process extracts, if the first has a score to make of features."""
    missing = any(
        not protocol.images and protocol.name not in result["protocols"]
        for protocol in chosen
        for result in results
    )
    if largest(int(missing and rank() == 0), device=device)[0]:
        features()


def _folder(
    cache: str | Path | None, protocol: Protocol, prints: Sequence[str | None]
) -> Path | None:
    if cache is None or None in prints:
        return None
    key = hashlib.sha256(f"{protocol.id} {prints}".encode()).hexdigest()[:16]
    return Path(cache).expanduser() / f"{protocol.name}-{key}"


def _score(protocol: Protocol, task: Task, result: Result, failures: bool) -> None:
    started = time.perf_counter()
    try:
        scores = protocol.run(task, protocol.parameters)
    except (ValueError, RuntimeError) as error:  # a RuntimeError: the device is out of memory
        if not failures:
            raise
        result["failed"][protocol.name] = " ".join(str(error).split())[:500]
        return
    seconds = round(time.perf_counter() - started, 1)
    result["protocols"][protocol.name] = {"protocol": protocol.id, **scores, "seconds": seconds}


def _about(data: str, splits: Splits) -> Result:
    return {
        "data": data,
        "title": splits.title,
        "metric": splits.metric,
        "differs": splits.differs,
        "n_train": len(splits.train),
        "n_test": len(splits.test),
    }


def _made_with(device: torch.device | str) -> Result:
    cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else str(device),
        "machine": platform.machine(),
        "versions": {
            "sslkit": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
