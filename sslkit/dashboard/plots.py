"""Plots of a run: its curves, and its scores beside those of random weights.

Figures are made without pyplot, so nothing global changes and no display is needed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sslkit.dashboard.metrics import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#1b1b1f", "#d9d9e0"
# Okabe and Ito's palette, in an order in which neighbours differ for every kind of eye.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
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


def curves(
    metrics: Mapping[str, Series],
    *,
    columns: int = 4,
    format: Literal["svg", "png"] = "svg",
) -> bytes:
    """Draw metrics as small multiples over the step.

    A noisy series of more than 100 points is drawn faint, with its moving average on top. A
    value that is not finite leaves a gap, and the panel says how many there are.

    Args:
        metrics: series by name, as :func:`sslkit.dashboard.metrics.read_metrics` gives them.
        columns: panels beside one another, at least 1.
        format: of the bytes that come back.

    Raises:
        ValueError: if there is no metric, or ``columns`` is below 1.

    >>> curves({"train/loss": ([0, 1], [2.0, 1.0])})[:5]
    b'<?xml'
    """
    groups = panels(metrics)
    if not groups or columns < 1:
        raise ValueError(f"curves need metrics and columns >= 1, not {list(metrics)}, {columns}")
    figure, axes = _figure(len(groups), columns, title=list(groups))
    for ax, names in zip(axes, groups.values(), strict=True):
        for colour, name in zip(_cycle(len(names)), names, strict=True):
            _line(ax, *metrics[name], colour, name if len(names) > 1 else None)
        if len(names) > 1:
            ax.legend(frameon=False, fontsize=8, labelcolor=INK)
        wrong = sum(not math.isfinite(v) for name in names for v in metrics[name][1])
        note = f" ({wrong} value{'s' * (wrong > 1)} not finite)" if wrong else ""
        ax.set_xlabel(f"step{note}", color=COLOURS[1] if wrong else INK, fontsize=8)
        if "images_per_second" in names:
            ax.set_ylim(bottom=0)
    return _bytes(figure, format)


def scores_bar(
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: int = 4,
    format: Literal["svg", "png"] = "svg",
) -> bytes:
    """Draw the accuracies as bars: a panel a data set, a group a protocol, a bar a backbone.

    Args:
        rows: the contents of a run's ``evaluation/*.json``: "data", "weights", "target", and
            "protocols" with an "accuracy" in percent each; protocols without one are left out.
        columns: panels beside one another, at least 1.
        format: of the bytes that come back.

    Raises:
        ValueError: if no row has an accuracy, or ``columns`` is below 1.

    >>> row = {"data": "cifar10", "weights": "trained", "protocols": {"knn": {"accuracy": 61.2}}}
    >>> scores_bar([row])[:5]
    b'<?xml'
    """
    scores: dict[str, dict[str, dict[str, float]]] = {}  # data set, backbone, protocol
    for row in rows:
        for protocol, values in row["protocols"].items():
            if "accuracy" in values:
                bars = scores.setdefault(str(row["data"]), {}).setdefault(backbone_name(row), {})
                bars[protocol] = float(values["accuracy"])
    if not scores or columns < 1:
        raise ValueError(f"scores_bar needs accuracies and columns >= 1, not {rows}, {columns}")
    names = sorted({n for bars in scores.values() for n in bars}, key=lambda n: (n != "random", n))
    colours = {"random": "#9a9aa5"} | dict(
        zip([n for n in names if n != "random"], _cycle(len(names)), strict=False)
    )
    figure, axes = _figure(len(scores), columns, title=list(scores))
    for ax, bars in zip(axes, scores.values(), strict=True):
        protocols = list(dict.fromkeys(p for values in bars.values() for p in values))
        shown = [name for name in names if name in bars]
        width = 0.8 / len(shown)
        for i, name in enumerate(shown):
            x = np.arange(len(protocols)) + (i - (len(shown) - 1) / 2) * width
            heights = [bars[name].get(protocol, math.nan) for protocol in protocols]
            drawn = ax.bar(x, heights, 0.94 * width, color=colours[name], label=name)
            texts = ["" if math.isnan(h) else f"{h:.1f}" for h in heights]
            ax.bar_label(drawn, texts, fontsize=8, color=INK, padding=1)
        ax.set_xticks(range(len(protocols)), protocols)
        ax.set_xlim(-0.6, len(protocols) - 0.4)
        ax.set_ylabel("accuracy, %", color=INK, fontsize=8)
        ax.margins(y=0.12)  # room for the numbers
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08)}
        ax.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=3, **place)
    return _bytes(figure, format)


def backbone_name(row: Mapping[str, Any]) -> str:
    """What a bar or a table line is called: the kind of weights; a timm model by its own name.

    >>> backbone_name({"weights": "timm", "target": "timm:resnet18"})
    'timm:resnet18'
    """
    weights = str(row.get("weights", "trained"))
    return str(row.get("target", weights)) if weights == "timm" else weights


def _cycle(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def _figure(n: int, columns: int, title: list[str]) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(columns, n)
    lines = -(-n // columns)
    figure = Figure(figsize=(3.6 * columns, 2.5 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for ax in grid[n:]:
        ax.remove()
    for ax, text in zip(grid, title, strict=False):
        ax.set_title(text, color=INK, fontsize=10, loc="left")
        ax.grid(axis="y", color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.patch.set_visible(False)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.spines["bottom"].set_color(INK)
        ax.tick_params(colors=INK, labelsize=8, length=0)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5))
    return figure, grid[:n]


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


def _bytes(figure: Figure, format: str) -> bytes:
    out = io.BytesIO()
    figure.savefig(
        out,
        format=format,
        dpi=150,
        transparent=format == "svg",
        metadata={"Date": None} if format == "svg" else None,
    )
    return out.getvalue()
