"""The command line: ``sslkit COMMAND``, a module here each. Heavy imports wait."""

import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from sslkit import __version__

STARTED = time.time()
COMMANDS = {
    "pretrain": "train a backbone on unlabelled images",
    "evaluate": "score backbones: kNN, linear, fine-tuned, retrieval; the SimCLR paper's table",
    "export": "a run's backbone for torchvision, timm and ONNX, checked, with a model card",
    "embed": "the features of a data set or a folder of images, in one file",
    "neighbours": "draw images beside those that a backbone calls most alike",
    "demo": "pretrain and evaluate on the embedded set, in minutes, with no download",
    "views": "draw images beside what a config's view makes of them",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 after one line on what was wrong."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] == "--version":
        print(f"sslkit {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        return _fail(f"no command {argv[0]!r}; choose from {', '.join(COMMANDS)}")
    if {"-h", "--help"} & set(argv[1:]) or (len(argv) == 1 and argv != ["demo"]):
        print(importlib.import_module("sslkit.cli.help").help_of(argv[0]))
        return 0
    try:
        return importlib.import_module(f"sslkit.cli.{argv[0]}").run(argv[1:])
    except (ValueError, OSError) as error:
        ours = isinstance(error, OSError) or _raised_by_us(error)
        if os.environ.get("SSLKIT_TRACEBACK") or not ours:
            raise
        return _fail(str(error))
    except KeyboardInterrupt:
        print("\nsslkit: stopped", file=sys.stderr)
        return 130


def _raised_by_us(error: BaseException) -> bool:
    """Whether sslkit raised it on purpose: then the message is for the user."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Path(frame.filename).is_relative_to(Path(__file__).parents[1])


def _fail(message: str) -> int:
    print(f"sslkit: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _help() -> str:
    rows = "\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())
    return (
        f"sslkit {__version__}: self-supervised and contrastive learning for images\n\n"
        f"usage: sslkit COMMAND [options]\n\n{rows}\n\n"
        "'sslkit COMMAND --help' says more. SSLKIT_TRACEBACK=1 shows where an error came from."
    )
