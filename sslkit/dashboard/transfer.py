"""The transfer table as bars: a panel a protocol, a group a set, a bar a target."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslkit.dashboard.plots import COLOURS, GRID, INK
from sslkit.evaluation.entries import (
    PROTOCOL_TITLES,
    Entry,
    metric_title,
    ordered,
    protocol_title,
    transfer_entries,
)
from sslkit.training import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 6  # targets: so many colours can be told apart
GREY, MUTED = "#9a9aa5", "#63636e"  # of random weights; of what is not ours
MARKS, PUBLISHED = "DosvP", ", published"
GAP: dict[str, Any] = {"rotation": 90, "color": MUTED, "fontsize": 7}
SET, GROUP, LEAST = 1.05, 0.82, 3  # a set in inches, its bars in sets, sets that have room


def transfer_chart(
    results: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    columns: Iterable[str] = (),
    protocols: Iterable[str] = (),
    published: bool = True,
) -> Path:
    """Draw a transfer table, as PNG or SVG, and return its path.

    A set that is absent, failed or was not run is a gap that says so. Published scores are marks
    beside the bars. Bars that a budget cut are hatched; a subset is named under its set. Of
    retrieval Recall@1 is drawn. Of more than 6 targets the first 6 are drawn, random weights
    among them, and the figure says so.

    Args:
        path: ends in .png or .svg. results, columns, protocols, published: as of
            :func:`sslkit.evaluation.entries.transfer_entries`.

    Raises:
        ValueError: another suffix, or results that have no table.
        OSError: the path cannot be written.

    >>> import tempfile
    >>> scores = {"linear": {"accuracy": 61.2}}
    >>> result = {"target": "runs/x", "data": "cifar10", "protocols": scores}
    >>> transfer_chart([result], f"{tempfile.mkdtemp()}/transfer.png").name
    'transfer.png'
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"a chart is a .png or a .svg, not {path.name!r}")
    entries = transfer_entries(results, columns=columns, protocols=protocols, published=published)
    out = io.BytesIO()
    kind = {"dpi": 150} if path.suffix == ".png" else {"metadata": {"Date": None}}
    transfer_figure(entries).savefig(out, format=path.suffix[1:], **kind)
    write_atomically(path, out.getvalue())
    return path


def transfer_figure(entries: Sequence[Entry]) -> Figure:
    """The figure of :func:`transfer_chart`, from :func:`transfer_entries`: an axes a protocol."""
    from matplotlib.figure import Figure

    drawn = [e for e in entries if e.protocol != "retrieval" or e.metric == "recall@1"]
    targets = list(dict.fromkeys(e.target for e in drawn if e.status != "published"))
    baseline_first = sorted(targets, key=lambda target: target != "random")
    shown = [target for target in targets if target in baseline_first[:MOST]]
    drawn = [e for e in drawn if e.status == "published" or e.target in shown]
    protocols = ordered((e.protocol for e in drawn if e.target in shown), PROTOCOL_TITLES)
    sets = max(len({e.data for e in drawn if e.protocol == p}) for p in protocols)
    size = (3 + SET * max(sets, LEAST), 0.3 + 2.6 * len(protocols))
    figure = Figure(size, layout="constrained")
    trained = [target for target in shown if target != "random"]
    colours = dict(zip(trained, COLOURS, strict=False)) | {"random": GREY}
    axes = figure.subplots(len(protocols), squeeze=False)[:, 0]
    for ax, protocol in zip(axes, protocols, strict=True):
        of_panel = [e for e in drawn if e.protocol == protocol]
        _panel(ax, of_panel, [e for e in of_panel if e.status != "published"], colours)
    if len(targets) > MOST:
        text = f"{MOST} of {len(targets)} targets; the table has all."
        figure.supxlabel(text, color=MUTED, fontsize=8)
    return figure


def _panel(
    ax: Axes, entries: Sequence[Entry], ours: Sequence[Entry], colours: Mapping[str, str]
) -> None:
    """The bars of one protocol, beside them the marks of the paper, and what is missing."""
    sets = list(dict.fromkeys(e.data for e in ours))
    targets = list(dict.fromkeys(e.target for e in ours))
    papers = list(dict.fromkeys(e.target for e in entries if e.status == "published"))
    width = GROUP / (len(targets) + 0.6 * len(papers))

    def x(e: Entry) -> float:
        return sets.index(e.data) - GROUP / 2 + (targets.index(e.target) + 0.5) * width

    narrow = width * SET * max(1, LEAST / len(sets)) < 0.25
    numbers: dict[str, Any] = {"fontsize": 7, "color": INK, "rotation": 90 if narrow else 0}
    for target in targets:
        row = [e for e in ours if e.target == target and e.score is not None]
        bars = ax.bar(
            [x(e) for e in row],
            [e.score for e in row],
            0.92 * width,
            color=colours[target],
            edgecolor="white",
            linewidth=0,
            hatch=["////" if e.cut else "" for e in row],
            label=_plain(target),
        )
        ax.bar_label(bars, [e.text for e in row], padding=2, **numbers)
    for i, name in enumerate(papers):
        row = [e for e in entries if e.target == name and e.status == "published"]
        right = GROUP / 2 - 0.6 * (len(papers) - i - 0.5) * width
        places = [sets.index(e.data) + right for e in row]
        style: dict[str, Any] = {"color": MUTED, "mfc": "none" if i else MUTED, "ms": 4, "ls": ""}
        style |= {"marker": MARKS[i % len(MARKS)], "label": f"{name}{PUBLISHED}"}
        ax.plot(places, [e.score for e in row], **style)
    for name in sets:
        missing = [e for e in ours if e.data == name and e.score is None]
        places = [x(e) for e in missing]
        texts = [e.text for e in missing]
        if len(missing) == len(targets) and len(set(texts)) == 1:
            places, texts = [sum(places) / len(places)], texts[:1]
        for place, text in zip(places, texts, strict=True):
            ax.text(place, 2, text, ha="center", **GAP)
    _dress(ax, ours, sets)


def _dress(ax: Axes, ours: Sequence[Entry], sets: Sequence[str]) -> None:
    """Title, axes and legend; under a set its metric, and what it is if not the published one."""
    labels = []
    for name in sets:
        of_set = [e for e in ours if e.data == name]
        differs = dict.fromkeys(e.differs for e in of_set if e.score is not None and e.differs)
        lines = [
            _plain(of_set[0].title),
            metric_title(of_set[0].metric),
            *(f"({d})" for d in differs),
        ]
        labels.append("\n".join(textwrap.fill(line, 18) for line in lines))
    cuts = list(dict.fromkeys(e.cut for e in ours if e.cut))
    hatched = f" (hatched: {cuts[0] if len(cuts) == 1 else 'cut by a budget'})" if cuts else ""
    title = protocol_title(ours[0].protocol) + hatched
    ax.set_title(title, color=INK, fontsize=10, loc="left")
    ax.set_xticks(range(len(sets)), labels, fontsize=8)
    ax.set_xlim(-0.5, len(sets) - 0.5)
    ax.set_ylim(0, 112)  # room for the numbers
    ax.set_yticks(range(0, 101, 20))
    ax.set_ylabel("%", color=INK, fontsize=8)
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(INK)
    ax.tick_params(colors=INK, labelsize=8, length=0)
    drawn = zip(*ax.get_legend_handles_labels(), strict=True)
    bars_first = sorted(drawn, key=lambda pair: pair[1].endswith(PUBLISHED))
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    ax.legend(*zip(*bars_first, strict=True), frameon=False, fontsize=8, labelcolor=INK, **place)


def _plain(name: str) -> str:
    """The end of a long name, without what matplotlib reads as formulas and as hidden labels."""
    short = name if len(name) < 32 else f"…{name[-30:]}"
    return " " * short.startswith("_") + short.replace("$", r"\$")
