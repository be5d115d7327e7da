"""A picture of an embedding: the distances within and between classes, and a map of a few."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslkit.dashboard.plots import COLOURS, GRID, INK
from sslkit.embeddings import unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 2000  # rows whose pairs are counted
BINS = 50
WITHIN, BETWEEN = COLOURS[2], COLOURS[1]


def embedding_picture(
    features: Tensor, labels: Tensor, classes: Sequence[str] | None = None
) -> bytes:
    """Draw how far apart images of one class and of two lie, and where a few classes lie, as PNG.

    Left, the share of pairs over their Euclidean distance at length 1, of one class and of two,
    each with its mean. Right, the six classes of the most images on the two directions in which
    these spread most (their principal components, of unit vectors), with the share of the
    spread that these hold.

    Args:
        features: (N, D), finite; the first 2,000 rows are drawn.
        labels: integers (N,) of at least 0. classes: the name of each label.

    Raises:
        ValueError: fewer than 2 classes, or no class with 2 images.

    >>> embedding_picture(torch.eye(4), torch.tensor([0, 0, 1, 1]))[1:4]
    b'PNG'
    """
    from matplotlib.figure import Figure

    z, labels = unit(features[:MOST].float().cpu()), labels[:MOST].cpu()
    shown, counts = labels.unique(return_counts=True)
    if not drawable(labels):
        raise ValueError(
            f"a picture of an embedding takes 2 classes or more, one of them with 2 images, not "
            f"{len(labels)} images of {len(shown)} class(es)"
        )
    figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    _distances(left, z, labels)
    _map(right, z, labels, shown[counts.argsort(descending=True, stable=True)[:6]], classes)
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
    counts = labels[:MOST].unique(return_counts=True)[1]
    return bool((labels >= 0).all()) and len(counts) > 1 and int(counts.max()) > 1


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
    ax.set_xlabel("Euclidean, at length 1", fontsize=9, color=INK)
    ax.set_ylabel("share of the pairs", fontsize=9, color=INK)
    ax.legend(frameon=False, fontsize=9)


def _map(
    ax: Axes, z: Tensor, labels: Tensor, chosen: Tensor, classes: Sequence[str] | None
) -> None:
    few = torch.isin(labels, chosen)
    points, of = z[few] - z[few].mean(0), labels[few]
    _, spread, directions = torch.linalg.svd(points, full_matrices=False)
    held = float(spread[:2].square().sum() / spread.square().sum().clamp_min(1e-12))
    flat = points @ directions[:2].T
    flat = torch.nn.functional.pad(flat, (0, 2 - flat.shape[1]))  # of a single dimension
    for label, colour, marker in zip(chosen.tolist(), COLOURS, "os^vDP", strict=False):
        x, y = flat[of == label].T.numpy()
        name = classes[label] if classes else str(label)
        ax.scatter(
            x, y, s=16, color=colour, marker=marker, alpha=0.75, linewidths=0, label=name[:28]
        )
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xticks([])
    ax.set_yticks([])
    title = f"{len(chosen)} of the largest classes: {100 * held:.0f} % of their spread is seen"
    ax.set_title(title, loc="left", fontsize=10, color=INK)
    ax.legend(
        frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.4
    )
