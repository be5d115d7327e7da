"""What `recipe.py` found: points of accuracy, and their picture."""

import io
import statistics
from typing import Any

import numpy as np

from sslkit.dashboard.plots import COLOURS, INK

Entry = dict[str, Any]  # of the record: a change, its steps and runs


def gains(entry: Entry, before: Entry, seeds: list[int]) -> list[float]:
    """The differences of accuracy, seed by seed."""
    was, now = ({run["seed"]: run["accuracy"] for run in e["runs"]} for e in (before, entry))
    return [now[seed] - was[seed] for seed in seeds]


def mean_gain(entry: Entry, before: Entry, seeds: list[int]) -> float:
    return round(statistics.mean(gains(entry, before, seeds)), 2)


def words(change: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in change.items())


def draw(record: Entry) -> bytes:
    """What each change gained alone: a bar for the mean, a dot for each seed."""
    from matplotlib.figure import Figure

    ran = [entry for entries in record["alone"].values() for entry in entries if "gain" in entry]
    ran.sort(key=lambda entry: -entry["gain"])
    figure = Figure(figsize=(8, 1.2 + 0.26 * len(ran)), layout="constrained", dpi=150)
    ax = figure.subplots()
    for y, entry in enumerate(ran):
        colour = COLOURS[0] if entry.get("kept") else "#bdbdc7"
        found = gains(entry, record["start"], record["setup"]["seeds"])
        ax.barh(y, entry["gain"], height=0.7, color=colour)
        ax.plot(found, y + 0.18 * np.arange(-1, len(found) - 1), ".", color=INK, markersize=4)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(ran)), [words(e["change"]) for e in ran], fontsize=8, color=INK)
    ax.invert_yaxis()
    ax.set_xlabel("points of kNN accuracy gained in the same time", fontsize=9, color=INK)
    seeds = record["setup"]["seeds"]
    start = statistics.mean(r["accuracy"] for r in record["start"]["runs"] if r["seed"] in seeds)
    title = f"each change alone, over {start:.1f} % of the start; blue: kept together; dots: seeds"
    ax.set_title(title, loc="left", fontsize=9, color=INK)
    ax.tick_params(length=0, labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
