"""The JSON files of scores and the pictures beside them, also when new scores come."""

import json
import sys
from pathlib import Path
from typing import Any

from sslkit.dashboard.retrieval_pictures import beside, save_retrieval_pictures
from sslkit.evaluation.suite import AtHand
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

    A file of others, say of an earlier step, is moved into ``earlier/``, with its pictures: no
    score is lost.
    """
    keys = ("backbone", "weights_fingerprint", "n_train", "n_test", "differs")
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
            for name, picture in beside(path).items():
                if picture.exists():
                    picture.rename(beside(aside)[name])
            path.rename(aside)  # last: where a picture stays, all that is left moves next time
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())


def draw(path: Path, images: Any, features: AtHand, *, anew: bool) -> list[Path]:
    """The pictures of a retrieval score that were drawn beside its file.

    Of a score that was there before they are drawn where they are missing, if the features are on
    disk or were extracted for another score; a line says it if not, or what went wrong: the score
    is kept without them.
    """
    try:
        written = save_retrieval_pictures(path, images, features, anew=anew)
    except (OSError, ValueError) as error:
        print(f"no pictures beside {path}: {error}", file=sys.stderr)
        return []
    if written is None:
        missing = ", ".join(p.name for p in beside(path).values() if not p.exists())
        text = f"not drawn beside {path}: {missing}; its features were not kept, --again draws all"
        print(text, file=sys.stderr)
    return written or []
