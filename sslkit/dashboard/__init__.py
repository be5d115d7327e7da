"""What is logged and drawn of a run: its metrics file, its wandb run, its pictures, its report."""

from sslkit.dashboard.evaluation import log_evaluation
from sslkit.dashboard.loggers import CSVLogger
from sslkit.dashboard.metrics import read_metrics
from sslkit.dashboard.picture_sheets import PictureSheets
from sslkit.dashboard.plots import curves, scores_bar, scores_by_layer
from sslkit.dashboard.report import write_report
from sslkit.dashboard.sheets import neighbour_sheet, views_sheet
from sslkit.dashboard.step_bars import step_bars
from sslkit.dashboard.transfer import transfer_chart
from sslkit.dashboard.wandb_run import wandb_logger

__all__ = [
    "CSVLogger",
    "PictureSheets",
    "curves",
    "log_evaluation",
    "neighbour_sheet",
    "read_metrics",
    "scores_bar",
    "scores_by_layer",
    "step_bars",
    "transfer_chart",
    "views_sheet",
    "wandb_logger",
    "write_report",
]
