"""Checkpoints read safely, and the backbone as a file that other libraries load."""

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sslkit.backbones import Backbone, build, describe

FORMAT = "sslkit backbone 1"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A Lightning checkpoint of sslkit, on the CPU, read without unpickling code.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or not one of sslkit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is not a checkpoint that loads safely: {reason}") from None
    if not isinstance(checkpoint, dict) or "sslkit" not in checkpoint:
        raise ValueError(f"{path} was not written by sslkit: it has no 'sslkit' entry")
    return checkpoint


def export_backbone(backbone: Backbone, path: str | Path, card: dict[str, Any]) -> None:
    """Write ``path`` (safetensors) and the JSON beside it that says what it is, atomically.

    Args:
        path: ends in ``.safetensors``; the card goes to the same name with ``.json``.
        card: what else to say: the view's normalisation and size, the method, the data.
    """
    path = Path(path)
    state = {k: v.detach().cpu().contiguous() for k, v in backbone.export_state().items()}
    card = {"format": FORMAT, "backbone": describe(backbone), **card}
    part = path.with_name(f".{path.name}.part")
    save_file(state, part, {"format": "pt"})
    os.replace(part, path)
    write_text(path.with_suffix(".json"), json.dumps(card, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a reader sees the old one or the new one."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def load_backbone(path: str | Path) -> tuple[Backbone, dict[str, Any]]:
    """The backbone and its card from a run folder, a checkpoint or a ``.safetensors`` file.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not written by sslkit, damaged, or weights that do not fit the architecture.
    """
    path = Path(path)
    if path.is_dir():
        exported, last = path / "backbone.safetensors", path / "checkpoints" / "last.ckpt"
        if not exported.exists() and not last.exists():
            raise FileNotFoundError(
                f"{path} holds neither {exported.name} nor checkpoints/last.ckpt"
            )
        path = exported if exported.exists() else last
    if not path.is_file():
        raise FileNotFoundError(f"no run folder, checkpoint or backbone file at {path}")
    if path.suffix == ".safetensors":
        return _load_exported(path)
    checkpoint = read_checkpoint(path)
    card = checkpoint["sslkit"]
    backbone = build(card["backbone"])
    state = {
        name.removeprefix("backbone."): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("backbone.")
    }
    _fill(backbone.load_state_dict, state, path)
    return backbone, card


def _load_exported(path: Path) -> tuple[Backbone, dict[str, Any]]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise FileNotFoundError(f"{path} needs {beside.name} beside it, which says what it is")
    try:
        card = json.loads(beside.read_text())
        state = load_file(path)
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"{path} or its card is damaged: {error}") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(f"{beside} does not say {FORMAT!r}: not written by sslkit")
    backbone = build(card["backbone"])
    _fill(backbone.load_exported, state, path)
    return backbone, card


def _fill(load: Any, state: dict[str, torch.Tensor], path: Path) -> None:
    try:
        load(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        reason = " ".join(line.strip() for line in lines[1:2]) or lines[0]
        raise ValueError(f"{path} does not fit its architecture: {reason[:300]}") from None
