"""Sets on disk: where they are looked for, what reading them raises, and errors of one line."""

import difflib
import http.client
import os
import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path

FAULTS = (  # what torchvision raises without a network or over damaged files
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AssertionError, EOFError),
    *(http.client.HTTPException, pickle.UnpicklingError, zlib.error),
)


def data_root(root: str | Path | None = None) -> Path:
    """The folder of all sets: ``root``, else ``$SSLKIT_DATA``, else ``~/.cache/sslkit/data``.

    >>> data_root("/data").name
    'data'
    """
    return Path(root or os.environ.get("SSLKIT_DATA") or "~/.cache/sslkit/data").expanduser()


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError, with the choices and the nearest one, unless the value is one of them."""
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown {what} {value!r}: choose from {', '.join(choices)}{hint}")


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line, without its advice to download.

    >>> one_line(RuntimeError("Dataset not found. You can use download=True to download it"))
    'Dataset not found'
    >>> one_line(KeyError("dog"))
    "unknown 'dog'"
    """
    text = " ".join(str(error).split()) or type(error).__name__
    text = f"unknown {text}" if type(error) is KeyError else text
    return text.removesuffix(". You can use download=True to download it")
