"""``metrics.csv``: the numbers of a run in one wide table that outlives a kill and a resume.

Lightning's own CSVLogger deletes the earlier file when a run resumes; this one goes on in it.
"""

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from sslkit.dashboard.metrics import read_rows
from sslkit.training import write_atomically


class CSVLogger(Logger):
    """Write ``run_dir/metrics.csv``: columns step, epoch, then the metrics as they first appear.

    Metrics logged at one step share a row, also across a resume, so no step occurs twice. Rows go
    to disk every ``flush_rows`` rows, every ``flush_seconds`` seconds, with each checkpoint and at
    the end of the fit; a kill loses the rows since then. Values are written with 9 digits, which
    is exact for float32. Only rank zero writes.

    Args:
        run_dir: the run folder; made when the first row is written.
        flush_rows: rows held in memory at most, at least 1.
        flush_seconds: seconds a row waits at most, while metrics keep coming.

    Raises:
        ValueError: if ``flush_rows`` is below 1.

    >>> import tempfile
    >>> logger = CSVLogger(tempfile.mkdtemp())
    >>> logger.log_metrics({"train/loss": 2.5, "epoch": 0}, step=0)
    >>> logger.log_metrics({"online/knn": float("nan")}, step=0)
    >>> logger.flush()
    >>> print(logger.path.read_text().strip())
    step,epoch,train/loss,online/knn
    0,0,2.5,nan
    """

    def __init__(
        self, run_dir: str | Path, *, flush_rows: int = 50, flush_seconds: float = 5.0
    ) -> None:
        super().__init__()
        if flush_rows < 1:
            raise ValueError(f"flush_rows must be at least 1, not {flush_rows}")
        self._run_dir = Path(run_dir)
        self._flush_rows, self._flush_seconds = flush_rows, flush_seconds
        self._pending: dict[int, dict[str, str]] = {}
        self._flushed_at = time.monotonic()
        self._columns: list[str] = []  # empty until the file is opened
        self._last_row: dict[str, str] = {}
        self._last_offset = 0  # where in the file the last row begins, in bytes

    # Lightning puts checkpoints under save_dir/name/version: empty names keep them in the run.
    @property
    def name(self) -> str:
        """Empty: the run folder is the place itself."""
        return ""

    @property
    def version(self) -> str:
        """Empty: a run folder holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._run_dir)

    @property
    def path(self) -> Path:
        """The CSV file."""
        return self._run_dir / "metrics.csv"

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add scalars to the row of ``step`` (the step after the newest one if None)."""
        if step is None:
            self._open()
            newest = max(self._pending, default=int(self._last_row.get("step", -1)))
            step = newest + 1
        row = self._pending.setdefault(int(step), {"step": str(int(step))})
        row |= {name: f"{float(value):.9g}" for name, value in metrics.items() if name != "step"}

    @rank_zero_only
    def save(self) -> None:
        """Flush if it is time to; Lightning calls this after every ``log_metrics``."""
        waited = time.monotonic() - self._flushed_at
        if len(self._pending) >= self._flush_rows or waited >= self._flush_seconds:
            self.flush()

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Flush: what led to a checkpoint is on disk with it."""
        self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush."""
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Bring every row to disk now."""
        self._flushed_at = time.monotonic()
        if not self._pending:
            return
        self._open()
        rows, self._pending = list(self._pending.values()), {}
        again = bool(self._last_row) and rows[0]["step"] == self._last_row["step"]
        if again:
            rows[0] = self._last_row | rows[0]
        if {name for row in rows for name in row} <= set(self._columns) and self.path.exists():
            self._append(rows, over_last=again)
        else:
            earlier = read_rows(self.path)
            self._rewrite((earlier[:-1] if again else earlier) + rows)

    @rank_zero_only
    def resume_at(self, step: int) -> None:
        """Forget the rows after ``step``: a killed run wrote them after its last checkpoint.

        Call it before the fit, with the ``global_step`` of the checkpoint that is resumed from.
        The row of ``step`` itself stays, and what the resumed run logs at it goes into it.
        """
        self._pending = {}
        rows = read_rows(self.path)
        self._rewrite([row for row in rows if int(row["step"]) <= step])

    def _open(self) -> None:
        """Learn the columns and the last row of the file of an earlier run, once."""
        if not self._columns:
            self._rewrite(read_rows(self.path))  # a half-written last line is gone with this

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        names = ["step", "epoch", *(name for row in rows for name in row)]
        self._columns = list(dict.fromkeys(self._columns + names))
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(self._columns)
        lines = [header.getvalue().encode(), *map(self._line, rows)]
        write_atomically(self.path, b"".join(lines))
        self._last_row = rows[-1] if rows else {}
        self._last_offset = sum(map(len, lines[:-1]))

    def _append(self, rows: list[dict[str, str]], *, over_last: bool) -> None:
        lines = list(map(self._line, rows))
        with self.path.open("r+b") as file:
            start = file.seek(self._last_offset) if over_last else file.seek(0, io.SEEK_END)
            file.write(b"".join(lines))
            file.truncate()
        self._last_row, self._last_offset = rows[-1], start + sum(map(len, lines[:-1]))

    def _line(self, row: dict[str, str]) -> bytes:
        return (",".join(row.get(name, "") for name in self._columns) + "\n").encode()
