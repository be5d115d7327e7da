"""A picture of an embedding: the distances within and between classes, and a map of a few."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslkit.dashboard.names import shortened
from sslkit.dashboard.plots import COLOURS, GRID, INK
from sslkit.embeddings import unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 2000  # rows whose pairs are counted
EACH = 10  # rows of a class among them, where classes are many
SHOWN = 6  # classes on the map: so many colours can be told apart
BINS = 50
WITHIN, BETWEEN = COLOURS[2], COLOURS[1]


def embedding_picture(
    features: Tensor, labels: Tensor, classes: Sequence[str] | None = None
) -> bytes:
    """Draw how far apart images of one class and of two lie, and where a few classes lie, as PNG.

    Left, the share of pairs over their Euclidean distance at length 1, of one class and of two,
    each with its mean. Right, the six classes of the most images, drawn by lot where classes
    have as many, on their first two principal components (of unit vectors), with the share of
    their variance that these hold. The lot is the same each time.

    Args:
        features: (N, D), finite; of more than 2,000 rows 2,000 at most are drawn, by lot: 10 a
            class, or more where there are fewer than 200 classes.
        labels: integers (N,) of at least 0. classes: the name of each label.

    Raises:
        ValueError: fewer than 2 classes, or no class with 2 images.

    >>> embedding_picture(torch.eye(4), torch.tensor([0, 0, 1, 1]))[1:4]
    b'PNG'
    """
    from matplotlib.figure import Figure

    if not drawable(labels):
        raise ValueError(
            f"a picture of an embedding takes 2 classes or more, one of them with 2 images, not "
            f"{len(labels)} images of {len(labels.unique())} class(es)"
        )
    rows = _drawn(labels)
    of = f"; {len(rows):,} of {len(labels):,} images" if len(rows) < len(labels) else ""
    z, labels = unit(features[rows].float().cpu()), labels[rows].cpu()
    figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    _distances(left, z, labels)
    left.set_xlabel(f"Euclidean, at length 1{of}", fontsize=9, color=INK)
    _map(right, z, labels, classes)
    for ax in (left, right):
        ax.tick_params(colors=INK, labelsize=8, length=0)
        ax.spines[:].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def drawable(labels: Tensor) -> bool:
    """Whether labels (N,) are known and have 2 classes, one of them twice, among those drawn.

    >>> drawable(torch.tensor([0, 0, 1])), drawable(torch.tensor([-1, -1]))
    (True, False)
    """
    counts = labels[_drawn(labels)].unique(return_counts=True)[1]
    return bool((labels >= 0).all()) and len(counts) > 1 and int(counts.max()) > 1


def _drawn(labels: Tensor) -> Tensor:
    """The rows that are drawn, rising: all, or some of each class, and classes while they fit."""
    if len(labels) <= MOST:
        return torch.arange(len(labels))
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    _, of, counts = labels[order].cpu().unique(return_inverse=True, return_counts=True)
    by_class = of.argsort(stable=True)
    place = torch.empty_like(of)  # of each row among those of its class
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    place[by_class] = torch.arange(len(of)) - starts
    few = place < max(EACH, MOST // len(counts))
    turn = torch.randperm(len(counts), generator=generator)[of[few]]  # of each row's class
    return order[few][turn.argsort(stable=True)[:MOST]].sort().values


def _chosen(labels: Tensor) -> Tensor:
    """The classes of the most images, by lot where they have as many."""
    shown, counts = labels.unique(return_counts=True)
    lot = torch.randperm(len(shown), generator=torch.Generator().manual_seed(0))
    return shown[lot][counts[lot].argsort(descending=True, stable=True)[:SHOWN]].sort().values


def _distances(ax: Axes, z: Tensor, labels: Tensor) -> None:
    first, second = torch.triu_indices(len(z), len(z), offset=1)
    distance = torch.cdist(z, z)[first, second]
    same = labels[first] == labels[second]
    top = float(distance.max().clamp(0.02, 2))
    for name, of, colour in (("one class", same, WITHIN), ("two classes", ~same, BETWEEN)):
        values = distance[of]
        share = torch.histc(values.clamp_max(top), BINS, 0, top) / len(values)
        edges = torch.linspace(0, top, BINS + 1)
        ax.stairs(share.numpy(), edges.numpy(), fill=True, alpha=0.45, color=colour)
        ax.stairs(share.numpy(), edges.numpy(), color=colour, label=f"{name}: {values.mean():.3f}")
        ax.axvline(float(values.mean()), color=colour, linewidth=1, linestyle="--")
    ax.set_xlim(0, top)
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.set_title("Distance of two images, and its mean", loc="left", fontsize=10, color=INK)
    ax.set_ylabel("share of the pairs", fontsize=9, color=INK)
    ax.legend(frameon=False, fontsize=9)


def _map(ax: Axes, z: Tensor, labels: Tensor, classes: Sequence[str] | None) -> None:
    chosen, there = _chosen(labels), len(labels.unique())
    few = torch.isin(labels, chosen)
    points, of = z[few] - z[few].mean(0), labels[few]
    _, spread, directions = torch.linalg.svd(points, full_matrices=False)
    held = float(spread[:2].square().sum() / spread.square().sum().clamp_min(1e-12))
    flat = points @ directions[:2].T
    flat = torch.nn.functional.pad(flat, (0, 2 - flat.shape[1]))  # of a single dimension
    for label, colour, marker in zip(chosen.tolist(), COLOURS, "os^vDP", strict=False):
        x, y = flat[of == label].T.numpy()
        name = shortened(classes[label] if classes else str(label), 28)
        ax.scatter(x, y, s=16, color=colour, marker=marker, alpha=0.75, linewidths=0, label=name)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xticks([])
    ax.set_yticks([])
    which = f"{len(chosen)} of {there} classes, those of most images, ties by lot"
    title = which if there > len(chosen) else f"All {there} classes"
    ax.set_title(title, loc="left", fontsize=10, color=INK)
    axes = f"first two principal components: {100 * held:.0f} % of the variance"
    ax.set_xlabel(axes, fontsize=9, color=INK)
    ax.legend(
        frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.4
    )
