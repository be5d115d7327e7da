"""The Weights & Biases run of a run folder: online, offline or not at all, and never a question."""

import os
import re
import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sslkit.data.network import answers
from sslkit.training import write_atomically

if TYPE_CHECKING:
    from pytorch_lightning.loggers import WandbLogger

MODES = ("auto", "online", "offline", "disabled")
_SECRET = re.compile(
    r"^token$|(^|[_.-])(api_?key|password|secret|(access|auth|api|hf)_token)$", re.IGNORECASE
)


def wandb_logger(
    run_dir: str | Path,
    *,
    mode: Literal["auto", "online", "offline", "disabled"] = "auto",
    project: str = "sslkit",
    name: str,
    config: dict[str, Any],
) -> "WandbLogger | None":
    """Make Lightning's wandb logger for a run folder, or None if wandb is disabled.

    "auto" is online when wandb has credentials (``WANDB_API_KEY``, netrc, wandb's settings) and
    its server answers within 3 seconds, offline otherwise; ``WANDB_MODE`` and ``wandb offline``
    decide before that. Nothing is asked on the console: wandb itself is silent, one line on
    stderr says the mode and how to look at the run.

    Files lie in ``run_dir/wandb/``. The run's id is kept in ``run_dir/wandb/run_id.txt``, so a
    resumed run goes on in the same wandb run. Entries of ``config`` whose name is that of a secret
    (``password``, ``api_key``, ``token``) are left out, at any depth.

    Raises:
        ValueError: if ``mode`` is none of the four, or it is "online" without credentials.

    >>> wandb_logger("runs/x", mode="disabled", name="x", config={}) is None
    True
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, not one of {', '.join(MODES)}")
    if mode == "disabled" or (mode == "auto" and os.environ.get("WANDB_MODE") == "disabled"):
        return None
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    run_dir = Path(run_dir)
    # Before anything else of wandb: settings that are read under a loud setup print.
    wandb.setup(wandb.Settings(silent=True, console="off"))
    resolved, why = _resolve(mode)
    if resolved == "disabled":
        return None
    run_id = _run_id(run_dir)
    _say(run_dir, resolved, why, project, run_id)
    settings = wandb.Settings(mode=resolved, silent=True, console="off", save_code=False)
    return WandbLogger(
        name=name,
        save_dir=run_dir,
        id=run_id,
        project=project,
        resume="allow",
        config=_without_secrets(config),
        settings=settings,
    )


def _resolve(mode: str) -> tuple[str, str]:
    """The mode to run in, and why."""
    import wandb

    asked = mode
    if mode == "auto":
        # The singleton knows `wandb offline` and WANDB_MODE, but keeps what it first read of it.
        asked = os.environ.get("WANDB_MODE") or wandb.setup().settings.mode or "online"
        asked = {"dryrun": "offline", "run": "online"}.get(asked, asked)
    if asked in ("offline", "disabled"):
        return asked, "as asked"
    try:
        there = wandb.login(prompt=False, verify=False)
    except wandb.errors.AuthenticationError as error:
        raise ValueError(f"wandb: {error}; mend it, or choose offline or disabled") from error
    if not there:
        if mode == "online" or "WANDB_MODE" in os.environ:
            raise ValueError(
                "wandb is to run online and has no credentials: run `wandb login`, set "
                "WANDB_API_KEY, or choose the mode auto, offline or disabled"
            )
        return "offline", "no API key"
    server = wandb.setup().settings.base_url
    if mode == "auto" and not answers(server):
        return "offline", f"no answer from {server}"
    return "online", "credentials found"


def _run_id(run_dir: Path) -> str:
    """The folder's wandb id, drawn on the first call."""
    path = run_dir / "wandb" / "run_id.txt"
    if not path.exists():
        write_atomically(path, secrets.token_hex(4).encode())
    return path.read_text().strip()


def _say(run_dir: Path, mode: str, why: str, project: str, run_id: str) -> None:
    if mode == "online":
        line = f"online, project {project}, run {run_id}"
    else:
        folder = shlex.quote(f"{run_dir}/wandb")
        look, upload = f"wandb leet {folder}/latest-run", f"wandb sync {folder}/offline-run-*"
        line = f"offline ({why}); look: {look}; upload: {upload}"
    print(f"wandb: {line}", file=sys.stderr, flush=True)


def _without_secrets(value: Any) -> Any:
    """The same config less the entries named like a secret.

    >>> _without_secrets({"hub": {"api_token": "x", "class_token": True}, "key": [{"password": 1}]})
    {'hub': {'class_token': True}, 'key': [{}]}
    """
    if isinstance(value, dict):
        return {k: _without_secrets(v) for k, v in value.items() if not _SECRET.search(str(k))}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return value
