"""A picture of where the time of training steps goes."""

import io
from collections.abc import Mapping

import numpy as np

from sslkit.dashboard.plots import COLOURS, INK

GREYS = {"network forward": "#d3d3da", "network backward": "#bdbdc7"}  # what time is meant for


def step_bars(steps: Mapping[str, Mapping[str, float]], title: str) -> bytes:
    """Draw the parts of steps as bars of shares, as PNG.

    The network is grey, what is spent beside it has colours.

    Args:
        steps: for each bar's label the milliseconds of its parts, as
            :meth:`sslkit.callbacks.StepProfile.found` gives them.
        title: of the picture.

    Raises:
        ValueError: if there is no step, or one that took no time.

    >>> step_bars({"32 px": {"views": 1.0, "network forward": 9.0}}, "a step")[1:4]
    b'PNG'
    """
    from matplotlib.figure import Figure

    if not steps or not all(sum(parts.values()) > 0 for parts in steps.values()):
        raise ValueError(f"step_bars needs steps that took time, not {dict(steps)}")
    figure = Figure(figsize=(8, 1.5 + 0.42 * len(steps)), layout="constrained", dpi=150)
    ax = figure.subplots()
    names = list(dict.fromkeys(name for parts in steps.values() for name in parts))
    others = [name for name in names if name not in GREYS]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}
    left = np.zeros(len(steps))
    for name in names:
        milliseconds = [parts.get(name, 0.0) for parts in steps.values()]
        totals = [sum(parts.values()) for parts in steps.values()]
        shares = 100 * np.array(milliseconds) / np.array(totals)
        drawn = ax.barh(
            range(len(steps)),
            shares,
            left=left,
            height=0.7,
            color={**GREYS, **colours}[name],
            edgecolor="white",
            linewidth=0.8,
            label=name,
        )
        texts = [f"{share:.0f} %" if share >= 4 else "" for share in shares]
        dark = "white" if name in colours else INK
        ax.bar_label(drawn, texts, label_type="center", fontsize=8, color=dark)
        left += shares
    ax.set_yticks(range(len(steps)), list(steps), fontsize=9)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of a step, %", fontsize=9, color=INK)
    ax.set_title(title, loc="left", fontsize=10, color=INK)
    ax.tick_params(colors=INK, length=0)
    ax.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
