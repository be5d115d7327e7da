"""The transfer table of the SimCLR paper (Chen et al. 2020, arXiv:2002.05709), of our results."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslkit.evaluation.entries import Entry, Result, transfer_entries
from sslkit.evaluation.grid import Grid, latex, markdown, markdown_text, transposed
from sslkit.evaluation.layout import by_set, notes_under, of_retrieval
from sslkit.evaluation.published import PUBLISHED
from sslkit.training import write_atomically


@dataclass(frozen=True)
class TransferTable:
    """A table as :func:`transfer_table` lays it out, and its renderings.

    Args:
        results: what it is made of. entries: its cells as a flat list. grids: as rows and columns.
        footnotes: text to mark. notes: the lines that follow.
    """

    results: Sequence[Result]
    entries: Sequence[Entry]
    grids: Sequence[Grid]
    footnotes: Mapping[str, str]
    notes: Sequence[str]

    def markdown(self, width: int | None = None) -> str:
        """As Markdown. What is wider than ``width`` characters has sets as rows instead."""
        text = "\n\n".join(map(markdown, self.grids))
        if width is not None and max(map(len, text.splitlines())) > width:
            turned = (t for g in self.grids for t in (transposed(g) if g.texts == 1 else [g]))
            text = "\n\n".join(map(markdown, turned))
        notes = [f"[{mark}] {markdown_text(text)}" for text, mark in self.footnotes.items()]
        notes += map(markdown_text, self.notes)
        return f"{text}\n\n" + "\n".join(f"- {note}" for note in notes)

    def latex(self) -> str:
        """As a LaTeX document that compiles alone: booktabs tabulars, the notes under them."""
        return latex(self.grids, self.footnotes, self.notes)

    def csv(self) -> str:
        """As tidy CSV, a row an entry under its field names. Scores are not rounded."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerows([Entry._fields, *self.entries])
        return out.getvalue()

    def json(self) -> str:
        """The results as they were given, and the published rows, as strict JSON.

        A number that is not finite, which JSON cannot say, is null.
        """
        shown = {entry.protocol for entry in self.entries if entry.status == "published"}
        rows = [row._asdict() for row in PUBLISHED if row.protocol in shown]
        plain = _plain({"results": self.results, "published": rows})
        return json.dumps(plain, indent=2, allow_nan=False) + "\n"

    def save(self, folder: str | Path, stem: str = "transfer") -> list[Path]:
        """Write ``stem``.md, .csv, .tex and .json into a folder, each whole or not at all.

        Raises:
            OSError: the folder cannot be written.
        """
        texts = {
            "md": self.markdown() + "\n",
            "csv": self.csv(),
            "tex": self.latex(),
            "json": self.json(),
        }
        paths = [Path(folder) / f"{stem}.{suffix}" for suffix in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            write_atomically(path, text.encode())
        return paths


def transfer_table(
    results: Sequence[Result],
    *,
    columns: Iterable[str] = (),
    protocols: Iterable[str] = (),
    published: bool = True,
) -> TransferTable:
    """The lecture's layout: a column a set, a block of rows a protocol, a row a target.

    Every set is a column, whether it is there or not: a cell without a score says "absent",
    "failed" or "not run", and a note says why. There is no mean over sets. The best of our rows is
    bold where two or more have a score and all that have are of the same images, metric, protocol
    and budget: full sets and subsets, or what a budget cut and what it did not, are not compared.
    Retrieval has a table of its own, with a row a target and set.

    Args, Raises: as of :func:`sslkit.evaluation.entries.transfer_entries`.

    >>> scores = {"linear": {"protocol": "linear/2:1a2b3c4d", "accuracy": 61.23}}
    >>> result = {"target": "runs/x", "data": "cifar10", "protocols": scores}
    >>> print(transfer_table([result], published=False).markdown())
    | **Linear evaluation** | CIFAR-10 |
    | --------------------- | -------: |
    | runs/x                |     61.2 |
    <BLANKLINE>
    - In percent: top-1 (CIFAR-10).
    - Linear evaluation: linear/2:1a2b3c4d.
    """
    entries = transfer_entries(results, columns=columns, protocols=protocols, published=published)
    footnotes: dict[str, str] = {}
    retrieval = [entry for entry in entries if entry.protocol == "retrieval"]
    others = [entry for entry in entries if entry.protocol != "retrieval"]
    layouts = ((by_set, others), (of_retrieval, retrieval))
    grids = [layout(part, footnotes) for layout, part in layouts if part]
    return TransferTable(results, entries, grids, footnotes, notes_under(entries))


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
