"""The JSON files of scores: what is in one, and what becomes of it when new scores come."""

import json
from pathlib import Path
from typing import Any

from sslkit.training import write_atomically


def read_scores(path: Path) -> dict[str, Any]:
    """The result that a file holds; ValueError where it holds none."""
    try:
        before = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}; move it away") from error
    if not isinstance(before, dict) or not isinstance(before.get("protocols"), dict):
        raise ValueError(f"{path} holds no scores: move it away")
    return before


def save_scores(path: Path, result: dict[str, Any]) -> None:
    """Write a result; other scores of the same weights and images stay in its file.

    A file of others, say of an earlier step, is moved into ``earlier/``: no score is lost.
    """
    keys = ("target", "backbone", "weights_fingerprint", "n_train", "n_test", "differs")
    if path.exists():
        before = read_scores(path)
        if all(before.get(key) == result.get(key) for key in keys):
            result = {**result, "protocols": before["protocols"] | result["protocols"]}
        else:
            aside, n = path.parent / "earlier" / path.name, 1
            while aside.exists():
                n += 1
                aside = aside.with_name(f"{path.stem}-{n}.json")
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())
