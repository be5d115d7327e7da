"""Results of evaluation as one flat list: each score, or the reason why there is none."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sslkit.data import about
from sslkit.evaluation.published import PUBLISHED, SIMCLR12

Result = Mapping[str, Any]
PROTOCOL_TITLES = {
    "linear": "Linear evaluation",
    "knn": "kNN",
    "finetune": "Fine-tuned",
    "semi1": "1 % of labels",
    "semi10": "10 % of labels",
    "retrieval": "Retrieval",
    "": "No protocol was run",
}
METRIC_TITLES = {
    "accuracy": "top-1",
    "mean_per_class": "mean per class",
    "map11": "11-point mAP",
    "nmi": "NMI",
    "f1": "F1",
    "map@r": "MAP@R",
}


class Entry(NamedTuple):
    """A score, or why there is none: a cell of the table, a bar of the chart, a row of the CSV."""

    target: str  # what its row is called: of other weights under the same name, "x (2)"
    backbone: str
    protocol: str
    data: str
    title: str
    metric: str
    score: float | None  # in percent
    status: str  # "scored", "absent", "failed", "not run" or "published"
    source: str
    protocol_id: str = ""
    differs: str | None = None
    cut: str | None = None
    step: int | None = None
    n_train: int | None = None
    n_test: int | None = None
    note: str = ""  # how to get what is absent, why it failed, what a score leaves out

    @property
    def text(self) -> str:
        """What its cell says: the score at one decimal, or the status."""
        return self.status if self.score is None else f"{self.score:.1f}"


def transfer_entries(
    results: Sequence[Result],
    *,
    columns: Iterable[str] = (),
    protocols: Iterable[str] = (),
    published: bool = True,
) -> list[Entry]:
    """Every target by every protocol on every set: ours, then the paper's.

    No set is left out: one without a score has an entry that says "absent", "failed" or "not
    run". Retrieval, which gives several numbers, is an entry a number.

    Args:
        results: one a target and set, as :func:`sslkit.evaluation.evaluate` returns them.
        columns: sets that come first, even if no result is of them, such as ``SIMCLR12``; the
            others follow in the paper's order.
        protocols: those that were asked of every target and set. By default a target's are those
            in its results, and a set that has retrieval alone is not expected to have others,
            nor the other way round.
        published: whether to add the rows of ``PUBLISHED`` for these protocols and sets.

    Raises:
        ValueError: no result, or one that lacks its target, its set or its protocols.

    >>> result = {"target": "runs/x", "data": "dtd", "protocols": {}, "absent": "get it from ..."}
    >>> [(e.target, e.data, e.text, e.note) for e in transfer_entries([result])]
    [('runs/x', 'dtd', 'absent', 'get it from ...')]
    """
    rows, columns, protocols = _rows(results), list(columns), list(protocols)
    has: dict[str, list[str]] = {name: [] for name in columns}  # set, protocols
    for result in results:
        has.setdefault(result["data"], []).extend(_asked(result))
    names = ordered([*protocols, *(p for of_set in has.values() for p in of_set)], PROTOCOL_TITLES)
    titles = _titles(results, [*columns, *ordered(has, SIMCLR12)])
    entries: list[Entry] = []
    for label, row in rows.items():
        own = [*protocols, *(name for result in row.values() for name in _asked(result))]
        for protocol in (name for name in names or [""] if not own or name in own):
            kind = {name for name in names if (name == "retrieval") == (protocol == "retrieval")}
            for data, title in titles.items():
                named = data in columns and protocol != "retrieval"
                here = not has[data] or kind.intersection(has[data])
                if here or named or protocol in protocols:
                    entries += _entries(label, protocol, data, title, row.get(data, {}))
    return entries + (_published(entries) if published else [])


def ordered(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names, each once: the known ones in their order, then the others in their own.

    >>> ordered(["x", "b", "x", "a"], ["a", "b", "c"])
    ['a', 'b', 'x']
    """
    names, known = list(dict.fromkeys(names)), list(known)
    return [n for n in known if n in names] + [n for n in names if n not in known]


def protocol_title(protocol: str) -> str:
    """As a table says it.

    >>> protocol_title("semi1"), protocol_title("x")
    ('1 % of labels', 'x')
    """
    return PROTOCOL_TITLES.get(protocol, protocol)


def metric_title(metric: str) -> str:
    """As a table says it.

    >>> metric_title("map11"), metric_title("recall@1")
    ('11-point mAP', 'R@1')
    """
    return METRIC_TITLES.get(metric, metric.replace("recall@", "R@"))


def _asked(result: Result) -> list[str]:
    return [*result["protocols"], *(result.get("failed") or {})]


def _rows(results: Sequence[Result]) -> dict[str, dict[str, Result]]:
    """The results of each row by their set. Other weights of the same name are another row."""
    if not results:
        raise ValueError("a transfer table needs results, and there are none")
    rows: dict[str, dict[str, Result]] = {}
    keys: dict[str, tuple[Any, ...]] = {}
    for result in results:
        if missing := [k for k in ("target", "data", "protocols") if k not in result]:
            raise ValueError(f"a result needs its {missing[0]!r}, but has {', '.join(result)}")
        key = tuple(result.get(k) for k in ("target", "layer", "backbone", "step"))
        name, n = " ".join(", ".join(str(k) for k in key[:2] if k).split()), 1
        label = name
        while label in rows and (keys[label] != key or result["data"] in rows[label]):
            n += 1
            label = f"{name} ({n})"
        keys[label] = key
        rows.setdefault(label, {})[result["data"]] = result
    return rows


def _titles(results: Sequence[Result], names: Iterable[str]) -> dict[str, str]:
    """Of each set, as a result has it, or as it is called elsewhere."""
    titles = {r["data"]: str(r["title"]) for r in results if r.get("title")}
    return {name: titles.get(name) or about(name).title for name in names}


def _entries(label: str, protocol: str, data: str, title: str, result: Result) -> Iterator[Entry]:
    """Those of one target, protocol and set; ``result`` is empty if there is none."""
    scores = (result.get("protocols") or {}).get(protocol)
    failed = (result.get("failed") or {}).get(protocol)
    metrics = [result.get("metric") or about(data).metric]
    if protocol == "retrieval":
        recalls = [name for name in scores or () if name.startswith("recall@")]
        clusters = [name for name in ("nmi", "f1", "map@r") if name in (scores or ())]
        metrics = [*recalls, *clusters] or ["recall@1"]
    elif scores is not None:
        metrics = [scores.get("metric", "accuracy")]
    for metric in metrics:
        score = (scores or {}).get(metric)
        status, note = "not run", ""
        if scores is not None and isinstance(score, int | float) and math.isfinite(score):
            status, note = "scored", (scores or {}).get("left_out", "")
        elif scores is not None:
            status, note = "failed", f"its {metric} is {score}"
        elif failed is not None:
            status, note = "failed", failed
        elif result.get("absent"):
            status, note = "absent", result["absent"]
        yield Entry(
            target=label,
            backbone=str(result.get("backbone") or ""),
            protocol=protocol,
            data=data,
            title=title,
            metric=metric,
            score=score if status == "scored" else None,
            status=status,
            source="sslkit",
            protocol_id=str((scores or {}).get("protocol") or ""),
            differs=result.get("differs"),
            cut=(scores or {}).get("cut"),
            step=result.get("step"),
            n_train=result.get("n_train"),
            n_test=result.get("n_test"),
            note=" ".join(str(note).split()),
        )


def _published(ours: Sequence[Entry]) -> list[Entry]:
    """The paper's rows, of the protocols and sets that ours are of."""
    titles = {(e.protocol, e.data): e.title for e in ours}
    return [
        Entry(
            target=f"{row.target} {row.backbone.split()[-1]}",
            backbone=row.backbone,
            protocol=row.protocol,
            data=data,
            title=titles[row.protocol, data],
            metric=SIMCLR12[data],
            score=score,
            status="published",
            source=row.source,
        )
        for row in PUBLISHED
        for data, score in row.scores.items()
        if (row.protocol, data) in titles
    ]
