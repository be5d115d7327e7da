"""``sslkit neighbours``: images beside those that a backbone calls most alike, in one picture."""

import io
import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from sslkit.cli.embedded import Embedded, check_out, embedded, parsed, parser_of
from sslkit.cli.views import FORMATS
from sslkit.dashboard import neighbour_sheet
from sslkit.dashboard.neighbours import SIDE, closest, pictures_of
from sslkit.dashboard.picture_sheets import sample
from sslkit.data import ArrayDataset, LabelledImages
from sslkit.evaluation import extract
from sslkit.training import write_atomically

MOST = 64  # queries, and neighbours of each: a picture of any format can hold them


def run(argv: list[str]) -> int:
    """Draw; returns the exit code."""
    parser = parser_of()
    parser.add_argument("--queries", nargs="+", type=str, default=["8"])
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--out", type=str, default="neighbours.png")
    args = parsed(parser, argv, "neighbours")
    out, given = Path(args.out), args.queries
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"--out must end in {', '.join(FORMATS)}, not {args.out!r}")
    check_out(out, overwrite=args.overwrite)
    count = int(given[0]) if len(given) == 1 and given[0].lstrip("-").isdecimal() else None
    for what, number in (("queries", len(given) if count is None else count), ("k", args.k)):
        if not 1 <= number <= MOST:
            raise ValueError(f"--{what} must be 1 to {MOST}, not {number}")
    found = embedded(args)
    n = len(found.rows)
    if args.k > n - 1:
        raise ValueError(f"--k {args.k} is above {n - 1}, the other images of {args.data}")
    if count is None:
        rows, images, features = _given(found, given)
    else:
        rows = sample(n, count)
        images = pictures_of(found.dataset, found.rows[rows])
        features = found.features[rows]
    index, scores = closest(features, found.features, rows, args.k)
    names = found.paths or [str(row) for row in found.rows.tolist()]
    asked = [names[row] if row >= 0 else given[i] for i, row in enumerate(rows.tolist())]
    labels, classes = _labels(found, rows, index, asked)
    near = pictures_of(found.dataset, found.rows[index.flatten()]).unflatten(0, index.shape)
    sheet = neighbour_sheet(images, near, labels, classes, scores)
    content = io.BytesIO()
    sheet.save(content, **FORMATS[out.suffix.lower()])
    write_atomically(out, content.getvalue())
    for query, near_rows, cosines in zip(asked, index.tolist(), scores.tolist(), strict=True):
        for row, cosine in zip(near_rows, cosines, strict=True):
            print(f"{query}\t{names[row]}\t{cosine:.3f}")
    print(f"neighbours: {out}", file=sys.stderr)
    return 0


def _given(found: Embedded, given: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Of image files: their rows, where they are of the set, else -1; pictures and features."""
    paths = getattr(found.dataset, "paths", None)
    files = [os.path.abspath(paths[row]) for row in found.rows.tolist()] if paths else []
    row_of = {file: row for row, file in enumerate(files)} | {
        name: row for row, name in enumerate(found.paths or [])
    }
    rows = [row_of.get(name, row_of.get(os.path.abspath(name), -1)) for name in given]
    for name, row in zip(given, rows, strict=True):
        if row < 0 and not Path(name).is_file():
            raise ValueError(f"--queries {name}: no image of the set, no file, and not one number")
    sources = [  # those of the set as it gives them, which may be cropped
        found.dataset.sources[int(found.rows[row])] if row >= 0 else Path(name)
        for name, row in zip(given, rows, strict=True)
    ]
    resident = isinstance(found.dataset, ArrayDataset)
    size = found.dataset.images.shape[-1] if resident else found.dataset.size
    queries = LabelledImages(sources, torch.full((len(given),), -1), (), size)
    device = next(found.backbone.parameters()).device
    features = extract(found.backbone, queries, found.view, device=device).features
    side = size if resident else SIDE
    return torch.tensor(rows), pictures_of(queries, torch.arange(len(queries)), side), features


def _labels(
    found: Embedded, rows: Tensor, index: Tensor, asked: list[str]
) -> tuple[Tensor, tuple[str, ...] | None]:
    """What the sheet compares, (Q, 1 + k), and what it calls the query: a class, else a file."""
    known = rows >= 0
    labels, classes = found.labels, found.dataset.classes
    if labels is None:
        near = torch.full_like(index, -1)
        return torch.cat([torch.arange(len(rows))[:, None], near], 1), tuple(
            Path(name).stem for name in asked
        )
    if labels.ndim == 1:
        near, query = labels[index], torch.where(known, labels[rows], -1)
        return torch.cat([query[:, None], near], 1), classes
    shared = ((labels[rows][:, None] == 1) & (labels[index] == 1)).any(2)  # (Q, k)
    right = torch.where(known[:, None], 1 - shared.long(), -1)
    return torch.cat([torch.zeros(len(rows), 1, dtype=torch.int64), right], 1), ("",)
