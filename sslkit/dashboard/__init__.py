"""What is logged and drawn of a run: its metrics file, its wandb run, its pictures, its report.

Names load when they are first used: a report needs no torch, a logger no matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslkit.dashboard.evaluation import log_evaluation
    from sslkit.dashboard.loggers import CSVLogger
    from sslkit.dashboard.metrics import read_metrics
    from sslkit.dashboard.picture_sheets import PictureSheets
    from sslkit.dashboard.plots import curves, scores_bar
    from sslkit.dashboard.report import write_report
    from sslkit.dashboard.sheets import neighbour_sheet, views_sheet
    from sslkit.dashboard.wandb_run import wandb_logger

_HOMES = {
    "CSVLogger": "loggers",
    "PictureSheets": "picture_sheets",
    "curves": "plots",
    "log_evaluation": "evaluation",
    "neighbour_sheet": "sheets",
    "read_metrics": "metrics",
    "scores_bar": "plots",
    "views_sheet": "sheets",
    "wandb_logger": "wandb_run",
    "write_report": "report",
}

__all__ = [
    "CSVLogger",
    "PictureSheets",
    "curves",
    "log_evaluation",
    "neighbour_sheet",
    "read_metrics",
    "scores_bar",
    "views_sheet",
    "wandb_logger",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
