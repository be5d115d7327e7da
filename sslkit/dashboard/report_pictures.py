"""The pictures of a run on its page: what it trained on, and what its test images show."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sslkit.dashboard.plots import backbone_name
from sslkit.dashboard.retrieval_pictures import beside

CAPTIONS = {
    "views": "Training images, and what the method is given of them.",
    "neighbours": "Nearest images by the cosine of the features. Whole green frame: the query's "
    "class; broken red frame: another; grey: no label.",
    "embedding": "Training images: how far apart two of one class and of two classes lie, and "
    "six of the classes on their first two principal components.",
    "colours": "Training images: the lightness that the method sees, the colours that it predicts "
    "for it, the true ones.",
}
TEST_CAPTIONS = {
    "retrieval": "Test images of {of}: queries of different classes, drawn by lot, and the nearest "
    "to each by the cosine of the features. Whole green frame: the query's class; broken red "
    "frame: another.",
    "embedding": "Test images of {of}: how far apart two of one class and of two classes lie, and "
    "six of the classes on their first two principal components.",
}


def run_pictures(paths: Sequence[Path]) -> str:
    """The pictures of training, the views first."""
    return "\n".join(
        figure(path, CAPTIONS.get(path.stem, path.stem.replace("_", " ")))
        for path in sorted(paths, key=lambda p: (p.stem != "views", p.stem))
    )


def figure(path: Path, caption: str) -> str:
    """A PNG with a line under it."""
    picture = image(path.read_bytes(), "image/png", path.stem)
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def score_pictures(evaluations: Mapping[Path, Mapping[str, Any]]) -> str:
    """The pictures beside files of scores, of each set those of random weights last."""
    whole = [item for item in evaluations.items() if "layer" not in item[1]]
    whole.sort(key=lambda item: (item[1]["data"], item[1].get("weights") == "random"))
    figures = [
        figure(picture, TEST_CAPTIONS[name].format(of=_weights_on(row)))
        for path, row in whole
        for name, picture in beside(path).items()
        if picture.exists()
    ]
    return "\n".join(figures)


def _weights_on(row: Mapping[str, Any]) -> str:
    """The set, and whose features of it.

    >>> _weights_on({"data": "cars196", "title": "Cars196", "weights": "random"})
    'Cars196 (weights: random)'
    """
    return f"{row.get('title') or row['data']} (weights: {backbone_name(row)})"


def image(content: bytes, kind: str, alt: str) -> str:
    """A picture inside the page."""
    uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return f'<img src="{uri}" alt="{escape(alt)}">'
