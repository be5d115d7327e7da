"""What `time_to_accuracy.py` found: how much sooner, as a table and as a picture."""

import itertools
import statistics
from pathlib import Path
from typing import Any

from markdown_tables import markdown

Record = dict[str, Any]
Curve = list[list[float]]  # [seconds, accuracy in percent], ...
LIGHTLY, SAME, RECIPE = ARMS = ("lightly", "sslkit, same settings", "sslkit, our recipe")


def reached(curve: Curve, target: float) -> float | None:
    """When a curve first has an accuracy, on straight lines between its points; None if never."""
    for (t0, a0), (t1, a1) in itertools.pairwise([curve[0], *curve]):
        if a1 >= target:
            return t1 if a1 == a0 else t0 + (t1 - t0) * (target - a0) / (a1 - a0)
    return None


def grouped(runs: list[Record]) -> dict[str, list[Record]]:
    """The runs of each arm and budget, by their name."""
    groups: dict[str, list[Record]] = {}
    for run in runs:
        groups.setdefault(f"{run['arm']}, {run['budget']:.4g} s", []).append(run)
    return groups


def mean(runs: list[Record], key: str) -> float:
    return statistics.mean(run["curve"][-1][1] if key == "accuracy" else run[key] for run in runs)


def summary(runs: list[Record]) -> Record:
    """What lightly ends with, when ours first have as much, and how many times sooner that is."""
    theirs = [run for run in runs if run["arm"] == LIGHTLY]
    target, seconds, ours = mean(theirs, "accuracy"), mean(theirs, "seconds"), {}
    for name, found in grouped(runs).items():
        if found[0]["arm"] != LIGHTLY:
            times = {str(run["seed"]): reached(run["curve"], target) for run in found}
            never = None in times.values()  # so that no ratio is of the lucky seeds alone
            ours[name] = {
                "accuracy": round(mean(found, "accuracy"), 2),
                "seconds to lightly's accuracy": {k: t and round(t, 2) for k, t in times.items()},
                "times sooner": 0.0 if never else seconds / statistics.mean(times.values()),
            }
    best = max(ours, key=lambda name: ours[name]["times sooner"], default=None)
    for entry in ours.values():
        entry["times sooner"] = float(f"{entry['times sooner']:.4g}") or None
    return {
        "lightly's accuracy": round(target, 2),
        "of each seed": {str(run["seed"]): run["curve"][-1][1] for run in theirs},
        "lightly's seconds": round(seconds, 2),
        "ours": ours,
        "best": best if best and ours[best]["times sooner"] else None,
    }


def table(record: Record) -> str:
    """A line for each arm and budget, means over seeds."""
    rows = [["", "seconds", "images/s", "epochs", "kNN, %", "s to lightly's, by seed", "sooner"]]
    for name, runs in grouped(record["runs"]).items():
        keys = ("seconds", "images per second", "epochs", "accuracy")
        row = [name, *(f"{mean(runs, key):,.1f}" for key in keys), "", ""]
        if entry := record["summary"]["ours"].get(name):
            times = entry["seconds to lightly's accuracy"].values()
            row[-2] = " ".join("never" if t is None else f"{t:.1f}" for t in times)
            row[-1] = f"{entry['times sooner']:.3g} times" if entry["times sooner"] else ""
        rows.append(row)
    return markdown(rows)


def draw(record: Record, path: Path) -> None:
    """Accuracy over seconds: the mean of the seeds, each seed thin behind it."""
    from matplotlib.figure import Figure

    from sslkit.dashboard.plots import COLOURS, GRID, INK

    found = record["summary"]
    colours = dict(zip(ARMS, (COLOURS[1], COLOURS[0], COLOURS[2]), strict=True))
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    axes, target = figure.add_subplot(), found["lightly's accuracy"]
    line: Record = {"color": colours[LIGHTLY], "ls": "--", "lw": 1.2}
    axes.axhline(target, **line, label=f"lightly's final accuracy, {target:.1f} %")
    for name, runs in grouped(record["runs"]).items():
        colour, sooner = colours[runs[0]["arm"]], found["ours"].get(name, {}).get("times sooner")
        for run in runs:
            axes.plot(*zip(*run["curve"], strict=True), color=colour, lw=0.7, alpha=0.4)
        style: Record = {"color": colour, "lw": 2, "marker": "o", "ms": 5}
        style["mfc"] = colour if runs[0]["budget"] == record["settings"]["seconds"] else "white"
        style["label"] = name + (f": {sooner:.1f} times sooner" if sooner else "")
        points = zip(*(run["curve"] for run in runs), strict=True)
        middle = [[statistics.mean(x) for x in zip(*point, strict=True)] for point in points]
        axes.plot(*zip(*middle, strict=True), **style)
        if sooner:
            there = found["lightly's seconds"] / sooner
            axes.plot(there, target, "D", color=INK, ms=7, mfc=colour, zorder=4)
    axes.set(xlabel="seconds of training", ylabel="kNN accuracy, %", xlim=(0, None))
    title = f"CIFAR-10, held-out training images; {record['hardware']}; thin: each seed"
    axes.set_title(title, fontsize=10)
    axes.grid(color=GRID, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    figure.savefig(path, dpi=130)
