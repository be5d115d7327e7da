"""The pictures of a retrieval score: test images beside their nearest, and their embedding."""

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sslkit.dashboard.embedding_picture import drawable, embedding_picture
from sslkit.dashboard.neighbours import closest, pictures_of
from sslkit.dashboard.sheets import neighbour_sheet
from sslkit.data import ArrayDataset, LabelledImages
from sslkit.evaluation import Features
from sslkit.evaluation.metrics import searched_for
from sslkit.training import write_atomically

QUERIES, NEAREST = 8, 8
NAMES = ("retrieval", "embedding")


def beside(score: Path) -> dict[str, Path]:
    """Where the pictures of a score's file are, by their names.

    >>> beside(Path("evaluation/cars196-random.json"))["retrieval"].name
    'cars196-random-retrieval.png'
    """
    return {name: score.with_name(f"{score.stem}-{name}.png") for name in NAMES}


def save_retrieval_pictures(
    score: Path,
    images: ArrayDataset | LabelledImages,
    features: Callable[[], Features | None],
    *,
    anew: bool,
) -> list[Path] | None:
    """Write the pictures of a score beside its file, each whole or not at all.

    Args:
        score: the JSON file. images: those to test with.
        features: gives theirs; None if they are not at hand.
        anew: whether pictures that are there are of another score; else they stay.

    Returns:
        The files that were written, none where they were there; None without features.
    """
    wanted = beside(score)
    if not drawable(images.labels):
        del wanted["embedding"]
    wanted = {name: path for name, path in wanted.items() if anew or not path.exists()}
    if not wanted:
        return []
    if (test := features()) is None:
        return None
    classes = getattr(images, "classes", None)
    for name, path in wanted.items():
        sheet = name == "retrieval"
        drawn = retrieval_sheet(images, test) if sheet else embedding_picture(*test, classes)
        write_atomically(path, drawn)
    return [*wanted.values()]


def retrieval_sheet(images: ArrayDataset | LabelledImages, test: Features) -> bytes:
    """Draw 8 queries with their 8 nearest by cosine, as PNG, as :func:`neighbour_sheet` does.

    The queries are drawn by lot, of different classes, and out of those that retrieval scores:
    their class has another image to be found. The lot depends on the labels alone, so that the
    sheets of two backbones show the same queries. Only images that are drawn are read.

    Args:
        images: to test with; those marked by their ``queries`` are searched for among the others,
            else each among all others.
        test: their features, and labels (N,).

    Raises:
        ValueError: there is no such query.

    >>> images = ArrayDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    >>> retrieval_sheet(images, Features(torch.eye(4), torch.tensor([0, 0, 1, 1])))[1:4]
    b'PNG'
    """
    marked = getattr(images, "queries", None)
    gallery = torch.arange(len(test.labels)) if marked is None else (~marked).nonzero()[:, 0]
    queries = _queries(test.labels, marked)
    own = queries if marked is None else torch.full_like(queries, -1)
    k = min(NEAREST, len(gallery) - (marked is None))
    rows, cosines = closest(test.features[queries], test.features[gallery], own, k)
    shown = torch.cat([queries[:, None], gallery[rows]], dim=1)  # (Q, 1 + k)
    drawn = pictures_of(images, shown.flatten()).unflatten(0, shown.shape)
    classes = getattr(images, "classes", None)
    sheet = neighbour_sheet(drawn[:, 0], drawn[:, 1:], test.labels[shown], classes, cosines)
    png = io.BytesIO()
    sheet.save(png, format="PNG")
    return png.getvalue()


def _queries(labels: Tensor, marked: Tensor | None) -> Tensor:
    """Rows of different classes, by lot, of which another image can be found: int64, at most 8."""
    scored = searched_for(labels, marked)
    first: dict[int, int] = {}  # class, row
    for row in torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tolist():
        if scored[row] and len(first) < QUERIES:
            first.setdefault(int(labels[row]), row)
    if not first:
        raise ValueError(f"no class of the {len(labels)} images has another image to be found")
    return torch.tensor([*first.values()])
