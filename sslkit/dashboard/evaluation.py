"""A run's evaluation on its dashboard."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from sslkit.evaluation.protocols import headline


def log_evaluation(
    run_dir: str | Path, results: Sequence[dict[str, Any]], pictures: Sequence[Path] = ()
) -> None:
    """Put scores into the summary of the run's wandb run, as ``evaluation/<data>/<protocol>``.

    Those of a layer are ``evaluation/<data>/<layer>/<protocol>``. A picture is logged as
    ``pictures/<name of its file>``.
    Does nothing for a run that has no wandb run.

    Args:
        results: what ``sslkit.evaluation.evaluate`` and ``evaluate_layers`` return.
        pictures: files that were drawn of them.
    """
    from sslkit.dashboard.wandb_run import wandb_logger

    run_dir = Path(run_dir)
    if not results or not (run_dir / "wandb" / "run_id.txt").is_file():
        return
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    logger = wandb_logger(
        run_dir, mode=config.get("wandb", "auto"), name=run_dir.name, config=config
    )
    if logger is None:
        return
    latest = run_dir / "wandb" / "latest-run"
    training = os.readlink(latest) if latest.is_symlink() else None
    for result in results:
        place = "/".join(filter(None, (result["data"], result.get("layer"))))
        for protocol, scores in result["protocols"].items():
            name = f"evaluation/{place}/{protocol}"
            logger.experiment.summary[name] = headline(scores)
    for path in pictures:
        logger.log_image(f"pictures/{path.stem}", [str(path)])
    logger.experiment.finish()
    if training and latest.is_symlink():  # what a viewer opens is the training, not this
        latest.unlink()
        latest.symlink_to(training)
