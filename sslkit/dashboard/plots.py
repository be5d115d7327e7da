"""Plots of a run: its curves, and its scores beside those of random weights.

Figures are made without pyplot, so nothing global changes and no display is needed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sslkit.dashboard.metrics import Series
from sslkit.evaluation.protocols import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#1b1b1f", "#d9d9e0"
# Okabe and Ito's palette, in an order in which neighbours differ for every kind of eye.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PROTOCOLS = {
    "knn": "kNN",
    "semi1": "1 % of labels",
    "semi10": "10 % of labels",
}  # as they are written; others as they are named
PANELS = {
    "train/loss": "loss",
    "online/knn": "online kNN (higher is better)",
    "lr": "learning rate",
    "images_per_second": "images per second",
    "online/feature_std": "feature std (0: collapsed)",
    "online/rankme": "RankMe, the effective rank",
    "online/alignment": "alignment (lower: views closer)",
    "online/uniformity": "uniformity (lower: more spread)",
}


def panels(metrics: Mapping[str, Series]) -> dict[str, list[str]]:
    """Sort metric names into panels: the known ones first, then by the last part of the name.

    >>> panels({"val/loss": ([], []), "train/loss": ([], []), "lr-SGD": ([], []), "a/b": ([], [])})
    {'loss': ['train/loss', 'val/loss'], 'learning rate': ['lr-SGD'], 'b': ['a/b']}
    """
    titles = {title: [name] for name, title in PANELS.items() if name in metrics}
    for name in sorted(set(metrics) - set(PANELS) - {"epoch"}):
        last = name.rsplit("/", 1)[-1]
        title = "learning rate" if name.startswith("lr-") else last
        titles.setdefault(title, []).append(name)
    order = [title for title in PANELS.values() if title in titles]
    return {title: titles[title] for title in dict.fromkeys(order + sorted(titles))}


def curves(metrics: Mapping[str, Series], title: str) -> bytes:
    """Draw metrics over the step, in one panel, as SVG.

    A noisy series of more than 100 points is drawn faint, with its moving average on top. A
    value that is not finite leaves a gap, and the axis says how many there are.

    Args:
        metrics: series by name, as :func:`sslkit.dashboard.metrics.read_metrics` gives them.
        title: of the panel.

    Raises:
        ValueError: if there is no metric.

    >>> curves({"train/loss": ([0, 1], [2.0, 1.0])}, "loss")[:5]
    b'<?xml'
    """
    if not metrics:
        raise ValueError("curves need metrics, and there are none")
    figure, ax = _figure(title)
    for i, (name, (steps, values)) in enumerate(metrics.items()):
        colour = COLOURS[i % len(COLOURS)]
        _line(ax, steps, values, colour, name if len(metrics) > 1 else None)
    if len(metrics) > 1:
        ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    wrong = sum(not math.isfinite(v) for _, values in metrics.values() for v in values)
    note = f" ({wrong} value{'s' * (wrong > 1)} not finite)" if wrong else ""
    ax.set_xlabel(f"step{note}", color=COLOURS[1] if wrong else INK, fontsize=8)
    if "images_per_second" in metrics:
        ax.set_ylim(bottom=0)
    return _svg(figure)


def scores_bar(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Draw the scores on one data set as bars, as SVG: a group a protocol, a bar a backbone.

    Args:
        rows: contents of a run's ``evaluation/*.json``: "weights", "target", and "protocols" with
            a score in percent each under its "metric", by default "accuracy"; protocols without
            one are left out.
        title: of the panel.

    Raises:
        ValueError: if no row has a score.

    >>> row = {"data": "cifar10", "weights": "trained", "protocols": {"knn": {"accuracy": 61.2}}}
    >>> scores_bar([row], "cifar10")[:5]
    b'<?xml'
    """
    bars: dict[str, dict[str, float]] = {}  # backbone, protocol
    for row in rows:
        for protocol, values in row["protocols"].items():
            if (score := headline(values)) is not None:
                bars.setdefault(backbone_name(row), {})[protocol] = score
    if not bars:
        raise ValueError(f"scores_bar needs scores, and there are none in {rows}")
    names = sorted(bars, key=lambda name: (name != "random", name))
    trained = [name for name in names if name != "random"]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(trained)}
    protocols = list(dict.fromkeys(p for values in bars.values() for p in values))
    width = 0.8 / len(names)
    figure, ax = _figure(title)
    for i, name in enumerate(names):
        x = np.arange(len(protocols)) + (i - (len(names) - 1) / 2) * width
        heights = [bars[name].get(protocol, math.nan) for protocol in protocols]
        drawn = ax.bar(x, heights, 0.94 * width, color=colours.get(name, "#9a9aa5"), label=name)
        texts = ["" if math.isnan(h) else f"{h:.1f}" for h in heights]
        ax.bar_label(drawn, texts, fontsize=8, color=INK, padding=1)
    ax.set_xticks(range(len(protocols)), [PROTOCOLS.get(p, p) for p in protocols])
    ax.set_xlim(-0.6, len(protocols) - 0.4)
    ax.set_ylabel("score, %", color=INK, fontsize=8)
    ax.margins(y=0.12)  # room for the numbers
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08)}
    ax.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=3, **place)
    return _svg(figure)


def scores_by_layer(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Draw the scores of a backbone's layers on one data set, as SVG: a line a protocol.

    Random weights are drawn broken, in the colour of their protocol.

    Args:
        rows: as :func:`scores_bar` takes them, each with its "layer" and the names of all
            "layers" in order.
        title: of the panel.

    Raises:
        ValueError: if no row has a score.

    >>> row = {"weights": "trained", "protocols": {"knn": {"accuracy": 61.2}}}
    >>> scores_by_layer([{**row, "layer": "a", "layers": ["a", "b"]}], "cifar10")[:5]
    b'<?xml'
    """
    lines: dict[tuple[str, str], dict[str, float]] = {}  # protocol and backbone, layer
    for row in rows:
        for protocol, values in row["protocols"].items():
            if (score := headline(values)) is not None:
                line = lines.setdefault((protocol, backbone_name(row)), {})
                line[row["layer"]] = score
    if not lines:
        raise ValueError(f"scores_by_layer needs scores, and there are none in {rows}")
    layers = list(dict.fromkeys(layer for row in rows for layer in row["layers"]))
    protocols = list(dict.fromkeys(protocol for protocol, _ in lines))
    figure, ax = _figure(title)
    for (protocol, name), line in sorted(lines.items(), key=lambda item: item[0][1] == "random"):
        colour = COLOURS[protocols.index(protocol) % len(COLOURS)]
        label = f"{PROTOCOLS.get(protocol, protocol)}, {name}"
        heights = [line.get(layer, math.nan) for layer in layers]
        style = "o--" if name == "random" else "o-"
        ax.plot(range(len(layers)), heights, style, ms=3, color=colour, label=label)
    ax.set_xticks(range(len(layers)), layers, fontsize=8, rotation=30 * (len(layers) > 5))
    ax.set_xlim(-0.3, len(layers) - 0.7)
    ax.set_ylabel("score, %", color=INK, fontsize=8)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12 - 0.08 * (len(layers) > 5))}
    ax.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=2, **place)
    return _svg(figure)


def backbone_name(row: Mapping[str, Any]) -> str:
    """What a bar or a table line is called: the kind of weights; a timm model by its own name.

    >>> backbone_name({"weights": "timm", "target": "resnet18"})
    'resnet18'
    """
    weights = str(row.get("weights", "trained"))
    return str(row.get("target", weights)) if weights == "timm" else weights


def _figure(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(3.6, 2.5), layout="constrained")
    ax = figure.subplots()
    ax.set_title(title, color=INK, fontsize=10, loc="left")
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.patch.set_visible(False)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(INK)
    ax.tick_params(colors=INK, labelsize=8, length=0)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    return figure, ax


def _line(
    ax: Axes, steps: Sequence[int], values: Sequence[float], colour: str, label: str | None
) -> None:
    """One series: dots if it is sparse, the smoothed line over the raw one if it is noisy."""
    y = np.asarray(values, dtype=float)
    y[~np.isfinite(y)] = np.nan
    noisy = _noisy(y)
    dots = {} if len(y) > 30 else {"marker": "o", "markersize": 3}
    raw = ax.plot(steps, y, color=colour, linewidth=1.4, alpha=0.3 if noisy else 1, **dots)[0]
    shown = ax.plot(steps, _smooth(y, 0.05), color=colour, linewidth=1.6)[0] if noisy else raw
    shown.set_label(label)


def _noisy(values: np.ndarray) -> bool:
    """Whether there are over 100 values that jump by more than 1 % of their range on average."""
    y = values[~np.isnan(values)]
    return len(y) > 100 and bool(np.abs(np.diff(y)).mean() > 0.01 * np.ptp(y))


def _smooth(values: np.ndarray, weight: float) -> np.ndarray:
    """The mean of the exponential moving averages from both ends, which lags in neither; gaps stay.

    >>> _smooth(np.array([1.0, np.nan, 1.0]), 0.5)
    array([ 1., nan,  1.])
    """
    return (_average(values, weight) + _average(values[::-1], weight)[::-1]) / 2


def _average(values: np.ndarray, weight: float) -> np.ndarray:
    """The exponential moving average, without the bias of its start."""
    total = mass = 0.0
    out = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if not np.isnan(value):
            total = (1 - weight) * total + weight * value
            mass = (1 - weight) * mass + weight
            out[i] = total / mass
    return out


def _svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()
