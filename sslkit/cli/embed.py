"""``sslkit embed``: the features of a data set or a folder of images, in one file."""

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sslkit.cli.embedded import Embedded, check_out, embedded, parsed, parser_of

SUFFIXES = (".parquet", ".npy", ".npz")


def run(argv: list[str]) -> int:
    """Embed; returns the exit code."""
    parser = parser_of()
    parser.add_argument("--out", type=str, required=True)
    args = parsed(parser, argv, "embed")
    out = Path(args.out)
    beside = out.with_suffix(".paths.txt")  # of a .npy, which holds numbers alone
    if out.suffix not in SUFFIXES:
        raise ValueError(f"--out must end in {', '.join(SUFFIXES)}, not {args.out!r}")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            "Parquet needs pyarrow, not installed: pip install 'sslkit[export]', or end --out in "
            ".npy or .npz"
        )
    for path in (out, beside) if out.suffix == ".npy" else (out,):
        check_out(path, overwrite=args.overwrite)
    found = embedded(args)
    if out.suffix == ".npy":
        with _replaced(beside) as part:
            lines = found.paths or [str(row) for row in found.rows.tolist()]
            text = "".join(line.replace("\n", "\\n") + "\n" for line in lines)
            part.write_text(text, encoding="utf-8")
    with _replaced(out) as part:
        {".parquet": _parquet, ".npy": _npy, ".npz": _npz}[out.suffix](part, found)
    n, width = found.features.shape
    print(f"embeddings: {out}, {n:,} x {width}", file=sys.stderr)
    return 0


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which then takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _parquet(part: Path, found: Embedded) -> None:
    """Columns path or index, label, features; the rest is in the schema's metadata, as JSON."""
    import pyarrow as pa
    from pyarrow import parquet

    n, width = found.features.shape
    kind = pa.int64()
    if found.labels is None:
        labels = pa.nulls(n, kind)
    else:
        kind = pa.list_(kind) if found.labels.ndim > 1 else kind
        labels = pa.array(found.labels.tolist(), kind)
    numbers = pa.array(found.features.numpy().reshape(-1))
    columns = {
        **({"path": found.paths} if found.paths else {"index": pa.array(found.rows.numpy())}),
        "label": labels,
        "features": pa.FixedSizeListArray.from_arrays(numbers, width),
    }
    table = pa.table(columns).replace_schema_metadata({"sslkit": json.dumps(found.about)})
    parquet.write_table(table, part)


def _npy(part: Path, found: Embedded) -> None:
    with part.open("wb") as file:
        np.save(file, found.features.numpy())


def _npz(part: Path, found: Embedded) -> None:
    arrays = {"features": found.features.numpy(), "about": np.array(json.dumps(found.about))}
    if found.labels is not None:
        arrays["labels"] = found.labels.numpy()
    if found.paths:
        arrays["paths"] = np.array(found.paths)
    else:
        arrays["index"] = found.rows.numpy()
    with part.open("wb") as file:
        np.savez(file, **arrays)
