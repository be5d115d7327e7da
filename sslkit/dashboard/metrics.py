"""Read ``metrics.csv``, also the one of a run that was killed while it wrote."""

import csv
from pathlib import Path

Series = tuple[list[int], list[float]]


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Read the whole rows of a metrics file as text, blanks left out.

    A last line without its line end was cut by a kill and is left out, as is a row with too few
    or too many cells. A missing or empty file has no rows.

    Raises:
        ValueError: if the file has no column "step".

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.csv"
    >>> _ = path.write_text("step,train/loss,lr\\n0,2.5,\\n1,2.4,0.1\\n2,2.")
    >>> read_rows(path)
    [{'step': '0', 'train/loss': '2.5'}, {'step': '1', 'train/loss': '2.4', 'lr': '0.1'}]
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    if not lines:
        return []
    header, *rows = lines
    if "step" not in header:
        raise ValueError(f"{path}: no column 'step' among {header}")
    whole = [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
    return [
        {name: cell for name, cell in row.items() if cell != ""}
        for row in whole
        if row["step"].isdecimal()
    ]


def read_metrics(path: str | Path) -> dict[str, Series]:
    """Read a metrics file as one series a metric: its steps, and its values at them.

    "epoch" is a series as well. NaN and infinities stay; blanks are left out, so series differ in
    length, and a metric without a value is not there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file has no column "step", or a cell is no number.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.csv"
    >>> _ = path.write_text("step,epoch,train/loss,lr\\n0,0,2.5,\\n1,0,nan,0.1\\n")
    >>> read_metrics(path)["train/loss"]
    ([0, 1], [2.5, nan])
    >>> read_metrics(path)["lr"]
    ([1], [0.1])
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no metrics file {path}")
    series: dict[str, Series] = {}
    for row in read_rows(path):
        step = int(row.pop("step"))
        for name, cell in row.items():
            try:
                value = float(cell)
            except ValueError:
                raise ValueError(
                    f"{path}: {name!r} at step {step} is {cell!r}, no number"
                ) from None
            steps, values = series.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)
    return series
