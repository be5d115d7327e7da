"""The protocols by name: what each reads, its parameters, and the id that stands beside a score."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sslkit.backbones import Backbone
from sslkit.data import Splits, class_disjoint
from sslkit.evaluation.checks import check_classes
from sslkit.evaluation.features import Features
from sslkit.evaluation.finetune import FINETUNE, SEMI1, SEMI10, budget, finetune, semi
from sslkit.evaluation.knn import knn
from sslkit.evaluation.linear import L2, linear
from sslkit.evaluation.metrics import searched_for
from sslkit.evaluation.retrieval import retrieval
from sslkit.views import EvaluationView


@dataclass
class Task:
    """What a protocol is given: a backbone on a data set, and its features.

    features: gives those of a split, "train" or "test".
    folder: where a long protocol may keep what it has finished, this task's alone; or None.
    """

    backbone: Backbone
    view: EvaluationView
    splits: Splits
    features: Callable[[str], Features]
    device: torch.device | str = "cpu"
    folder: Path | None = None

    @cached_property
    def classes(self) -> int:
        return check_classes(self.splits.train.labels)


@dataclass(frozen=True)
class Protocol:
    """A way to score; its id changes with any parameter, and its version with the code's meaning.

    Args:
        run: (task, parameters) to scores: "metric", under its name the score in percent, and
            what else is to be said.
        reads: the splits whose features it reads; of none, if it reads images.

    >>> PROTOCOLS["knn"].id.split(":")[0], PROTOCOLS["linear"].id.split(":")[0]
    ('knn/1', 'linear/2')
    """

    name: str
    version: int
    run: Callable[[Task, Mapping[str, Any]], dict[str, Any]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ("train", "test")

    @property
    def images(self) -> bool:
        return not self.reads

    @property
    def id(self) -> str:
        """Name, version and the beginning of the SHA-256 of the parameters."""
        plain = {k: asdict(v) if k == "recipe" else v for k, v in self.parameters.items()}
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        return f"{self.name}/{self.version}:{digest[:8]}"


def headline(scores: Mapping[str, Any]) -> float | None:
    """The one number of a protocol's scores, in percent; None where there is none.

    >>> headline({"metric": "recall@1", "recall@1": 51.2, "nmi": 60.0}), headline({"k": 20})
    (51.2, None)
    """
    value = scores.get(scores.get("metric", "accuracy"))
    return None if value is None else float(value)


def _knn(task: Task, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return knn(
        task.features("train"), task.features("test"), metric=task.splits.metric, **parameters
    )


def _linear(task: Task, parameters: Mapping[str, Any]) -> dict[str, Any]:
    options = {"device": task.device, "progress": True, **parameters}
    both = task.features("train"), task.features("test")
    return linear(*both, metric=task.splits.metric, **options)


def _retrieval(task: Task, parameters: Mapping[str, Any]) -> dict[str, Any]:
    test = task.features("test")
    if test.labels.ndim == 2:
        raise ValueError("retrieval needs one label an image, and these have several")
    queries = getattr(task.splits.test, "queries", None)
    scores = retrieval(test, queries=queries, **parameters)
    asked = len(test.labels) if queries is None else int(queries.sum())
    if few := asked - int(searched_for(test.labels, queries).sum()):
        alone, unknown = "images, alone in their class", "queries, of no class in the gallery"
        why = alone if queries is None else unknown
        scores["left_out"] = f"{few:,} of {asked:,} {why}, are left out of recall and MAP"
    return {"metric": "recall@1", **scores}


def _tuned(
    tune: Callable[..., dict[str, Any]], task: Task, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    check_classes(task.splits.test.labels, task.splits.train.labels)
    return tune(
        task.backbone,
        task.splits.train,
        task.splits.test,
        size=task.view.size,
        normalize=task.view.normalize,
        grayscale=task.view.grayscale,
        metric=task.splits.metric,
        classes=task.classes,
        device=task.device,
        **parameters,
    )


def _finetune(task: Task, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return _tuned(finetune, task, {**parameters, "folder": task.folder})


def _semi(task: Task, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return _tuned(semi, task, parameters)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("knn", 1, _knn, {"ks": (200, 20), "temperature": 0.07}),
        # Version 1 standardised the features, and had 8 values.
        Protocol(
            "linear", 2, _linear, {"l2": L2, "standardize": False, "validation": 0.1, "seed": 0}
        ),
        Protocol("finetune", 1, _finetune, {"recipe": FINETUNE}, reads=()),
        Protocol("semi1", 1, _semi, {"recipe": SEMI1}, reads=()),
        Protocol("semi10", 1, _semi, {"recipe": SEMI10}, reads=()),
        Protocol("retrieval", 1, _retrieval, {"ks": (1, 2, 4, 8), "seed": 0}, reads=("test",)),
    )
}


def check_suits(data: str, protocols: Sequence[Protocol]) -> None:
    """Raise ValueError where a set, by its name, cannot be scored by one of the protocols.

    >>> check_suits("cars196", protocols_of(["retrieval"]))
    >>> check_suits("cifar10", protocols_of(["retrieval", "knn"]))
    """
    fitted = [p.name for p in protocols if p.name in PROTOCOLS and p.name != "retrieval"]
    if fitted and class_disjoint(data):
        raise ValueError(
            f"{data} tests with classes that no training image shows: it is for "
            f"--protocol retrieval, not for {', '.join(fitted)}"
        )


def protocols_of(
    names: Sequence[str], *, steps: int | None = None, grid: tuple[int, int] | None = None
) -> list[Protocol]:
    """The protocols of these names, those that train cut to a budget.

    Args:
        names: keys of ``PROTOCOLS``. steps, grid: as of ``budget``: the most steps of a training,
            and how many learning rates and weight decays to choose from.

    Raises:
        ValueError: a name that is not there, or a budget out of its range.

    >>> cut = protocols_of(["knn", "finetune"], steps=200)[1]
    >>> cut.parameters["recipe"].steps, cut.id == PROTOCOLS["finetune"].id
    (200, False)
    """
    chosen = []
    for name in dict.fromkeys(names):
        if name not in PROTOCOLS:
            raise ValueError(f"no protocol named {name!r}; choose from {', '.join(PROTOCOLS)}")
        protocol = PROTOCOLS[name]
        if "recipe" in protocol.parameters:
            recipe = budget(protocol.parameters["recipe"], steps=steps, grid=grid)
            protocol = replace(protocol, parameters={"recipe": recipe})
        chosen.append(protocol)
    return chosen
