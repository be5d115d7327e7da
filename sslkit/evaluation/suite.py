"""Protocols by data sets, for one backbone."""

import hashlib
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from sslkit import __version__
from sslkit.backbones import Backbone
from sslkit.data import ArrayDataset, LabelledImages, Splits, load_splits
from sslkit.data import about as about_set
from sslkit.evaluation.features import Features, check_layers
from sslkit.evaluation.fingerprint import fingerprint
from sslkit.evaluation.processes import largest, rank, together
from sslkit.evaluation.protocols import Protocol, Task, check_suits, protocols_of
from sslkit.evaluation.shared_features import SharedFeatures
from sslkit.views import EvaluationView

Result = dict[str, Any]
AtHand = Callable[[], Features | None]


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
        the numbers of images, and "protocols": each one's scores in percent beside its id, the
        "fingerprints" of weights, images and view, seconds, device and versions.

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
    show: Callable[[Result, str, ArrayDataset | LabelledImages, AtHand], None] = lambda *_: None,
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
        show: called then, for scores of features, with the test images too, and with a function
            that gives their features, or None where they would have to be extracted again.
        failures: put the line of a protocol that cannot be scored into "failed", and of a set
            that is not there into "absent", and go on.
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
    named = [{"layer": name, "layers": list(backbone.layers)} for name in layers or ()] or [{}]
    try:
        with together(device, distributed):
            splits = load_splits(data, root=root, size=view.size, limit=limit)
            both = (splits.train, splits.test)
            prints = [_fingerprint(backbone, split, view, device) for split in both]
    except (ValueError, OSError) as error:
        if not failures:
            raise
        results = [{**name, **_without_data(data, error, chosen)} for name in named]
        for protocol in chosen:
            for result in results:
                keep(result, protocol.name)
        return results
    nothing = ArrayDataset(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
    about = {
        **_about(data, splits),
        "weights_fingerprint": _fingerprint(backbone, nothing, view, "cpu"),
    }
    results = [{**name, **about, "protocols": {}, "failed": {}} for name in named]
    for result in results:
        result["protocols"] = _found(result, prints, before, chosen)
    shared = SharedFeatures(
        backbone,
        view,
        splits,
        data,
        layers=layers,
        device=device,
        cache=cache,
        distributed=distributed,
    )
    if distributed:
        _extract_together(shared, results, chosen, device, failures)
        if rank() > 0:
            return results
    for protocol in chosen:
        for result in results:
            layer = result.get("layer", "")
            if protocol.name not in result["protocols"]:
                task = Task(
                    backbone,
                    view,
                    splits,
                    features=partial(shared.of, layer=layer),
                    device=device,
                    folder=_folder(cache, protocol, prints, splits),
                )
                _score(protocol, task, result, prints, failures)
            keep(result, protocol.name)
            if protocol.name in result["protocols"] and not protocol.images:
                show(result, protocol.name, splits.test, partial(shared.at_hand, "test", layer))
    return results


def absent(data: str, why: str) -> Result:
    """The result of a data set that is not there: its name and how to get it, and no score.

    >>> absent("dtd", "dtd is not at data/dtd: ...")["title"]
    'DTD'
    """
    title, metric, _ = about_set(data)
    about = {"data": data, "title": title, "metric": metric, "differs": None}
    return {**about, "n_train": None, "n_test": None, "protocols": {}, "failed": {}, "absent": why}


def _without_data(data: str, error: Exception, chosen: Sequence[Protocol]) -> Result:
    """The result of a data set that is absent, or that is there and cannot be read."""
    line = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return absent(data, line)
    failed = {protocol.name: line for protocol in chosen}
    return {**absent(data, line), "absent": None, "failed": failed}


def _fingerprint(
    backbone: Backbone, split: Dataset, view: EvaluationView, device: torch.device | str
) -> str | None:
    """None for images that cannot be told from others; their scores are never taken over."""
    try:
        return fingerprint(backbone, split, view, device=device)
    except ValueError:
        return None


def _found(
    result: Result,
    prints: Sequence[str | None],
    before: Sequence[Result],
    chosen: Sequence[Protocol],
) -> dict[str, dict[str, Any]]:
    """The scores asked for that earlier results have, of the same weights, images and view."""
    found: dict[str, dict[str, Any]] = {}
    for earlier in before if None not in prints else ():
        for protocol in chosen:
            scores = earlier["protocols"].get(protocol.name, {})
            alike = scores.get("fingerprints") == list(prints)
            same_layer = earlier.get("layer") == result.get("layer")
            if scores.get("protocol") == protocol.id and alike and same_layer:
                found[protocol.name] = scores
    return found


def _extract_together(
    shared: SharedFeatures,
    results: Sequence[Result],
    chosen: Sequence[Protocol],
    device: torch.device | str,
    failures: bool,
) -> None:
    """Every process extracts what the first needs for the scores that it has to make."""
    missing = {
        split
        for protocol in chosen
        for split in protocol.reads
        if any(protocol.name not in result["protocols"] for result in results)
    }
    splits = ("train", "test")
    asked = largest(*(int(split in missing and rank() == 0) for split in splits), device=device)
    for split in (split for split, wanted in zip(splits, asked, strict=True) if wanted):
        try:
            shared.of(split, results[0].get("layer", ""))
        except (ValueError, OSError):
            if not failures:
                raise


def _folder(
    cache: str | Path | None,
    protocol: Protocol,
    prints: Sequence[str | None],
    splits: Splits,
) -> Path | None:
    """Of this protocol, these weights and images, and the metric that chooses: no other's."""
    if cache is None or None in prints:
        return None
    task = f"{protocol.id} {prints} {splits.metric} {len(splits.train.classes)}"
    key = hashlib.sha256(task.encode()).hexdigest()[:16]
    return Path(cache).expanduser() / f"{protocol.name}-{key}"


def _score(
    protocol: Protocol,
    task: Task,
    result: Result,
    prints: Sequence[str | None],
    failures: bool,
) -> None:
    try:
        check_suits(result["data"], [protocol])
        for split in protocol.reads:
            task.features(split)  # once, and not in the protocol's time
        started = time.perf_counter()
        scores = protocol.run(task, protocol.parameters)
    except (ValueError, OSError, RuntimeError) as error:  # a RuntimeError: no memory is left
        if not failures:
            raise
        result["failed"][protocol.name] = " ".join(str(error).split())[:500]
        return
    result["protocols"][protocol.name] = {
        "protocol": protocol.id,
        **scores,
        "seconds": round(time.perf_counter() - started, 1),
        "fingerprints": list(prints),
        **_made_with(task.device),
    }


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
