"""Checkpoints read safely, and the backbone as a file that other libraries load."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sslkit.backbones import Backbone, build, describe
from sslkit.training.files import write_atomically
from sslkit.training.weights import check_fit, read_saved

FORMAT = "sslkit backbone 1"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A Lightning checkpoint of sslkit, on the CPU, read without unpickling code.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or not one of sslkit.
    """
    path = Path(path)
    checkpoint = read_saved(path, "checkpoint")
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("sslkit"), dict):
        raise ValueError(f"{path} was not written by sslkit: it has no 'sslkit' entry")
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(f"{path} is damaged: it has no 'state_dict'")
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
    # The weights last: where they are, their card is.
    write_atomically(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
    write_atomically(path, save(state, {"format": "pt"}))


def load_backbone(path: str | Path) -> tuple[Backbone, dict[str, Any]]:
    """The backbone and its card from a run folder, a checkpoint or a ``.safetensors`` file.

    Of a run folder the exported file is taken, or the last checkpoint of a run that goes on.

    Returns:
        The backbone in training mode on the CPU; the card with at least "backbone", "size" and
        "normalize".

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not written by sslkit, damaged, or weights that do not fit the architecture.

    >>> import tempfile
    >>> from sslkit.backbones import ResNet9
    >>> path = Path(tempfile.mkdtemp()) / "backbone.safetensors"
    >>> export_backbone(ResNet9(4), path, {"size": 32, "normalize": "half"})
    >>> backbone, card = load_backbone(path)
    >>> backbone.feature_dim, card["size"]
    (32, 32)
    """
    path = Path(path)
    if path.is_dir():
        exported, last = path / "backbone.safetensors", path / "checkpoints" / "last.ckpt"
        if not exported.exists() and not last.exists():
            raise FileNotFoundError(
                f"{path} holds neither {exported.name} nor checkpoints/last.ckpt"
            )
        path = exported if exported.exists() else last
        if exported.exists() and last.exists():  # a resumed run is ahead of what it exported
            loaded = _load_exported(exported), load_backbone(last)
            return max(loaded, key=lambda pair: pair[1].get("step") or 0)
    if not path.is_file():
        raise FileNotFoundError(f"no run folder, checkpoint or backbone file at {path}")
    if path.suffix == ".safetensors":
        return _load_exported(path)
    checkpoint = read_checkpoint(path)
    card = _checked(checkpoint["sslkit"], path)
    backbone = build(card["backbone"])
    state = {
        name.removeprefix("backbone."): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("backbone.")
    }
    check_fit(backbone.state_dict(), state, path)
    backbone.load_state_dict(state)
    return backbone, {**card, "step": checkpoint.get("global_step")}


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
    backbone = build(_checked(card, beside)["backbone"])
    check_fit(backbone.export_state(), state, path)
    backbone.load_exported(state)
    return backbone, card


def _checked(card: Any, path: Path) -> dict[str, Any]:
    needed = ("backbone", "size", "normalize")
    missing = [key for key in needed if not isinstance(card, dict) or key not in card]
    if missing or not isinstance(card["backbone"], dict):
        raise ValueError(
            f"{path} is damaged: it does not say its {', '.join(missing) or 'backbone'}"
        )
    return card


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are replaced whole: Lightning's may be copied over the old one in pieces."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write beside ``path``, then rename."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        torch.save(checkpoint, part)
        os.replace(part, path)
