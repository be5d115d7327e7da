"""Weights from files of any origin, read safely and held against the architecture they go into."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

SHOWN = 3  # keys that a message names
FAULTS = (  # what torch.load was seen to raise over files that are no checkpoints
    *(pickle.UnpicklingError, zipfile.BadZipFile, OSError, EOFError, RuntimeError),
    *(LookupError, ValueError, TypeError, AttributeError),
)


def read_saved(path: Path, what: str) -> Any:
    """What ``torch.save`` wrote, on the CPU, without unpickling code.

    Raises:
        FileNotFoundError: no such file; the message calls it ``what``, as the other does.
        ValueError: another file, or one that holds more than tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FAULTS as error:
        unsafe = isinstance(error, pickle.UnpicklingError) and "Unsupported" in str(error)
        why = (
            "it holds more than tensors and plain values" if unsafe else "damaged, or another file"
        )
        raise ValueError(f"{path} is not a {what} that loads safely: {why}") from error


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A plain state dict: a ``.safetensors`` file, or what ``torch.save`` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not a state dict.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "weights.pth"
    >>> torch.save({"fc.bias": torch.zeros(2)}, path)
    >>> read_weights(path)
    {'fc.bias': tensor([0., 0.])}
    """
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    state = read_saved(path, "file of weights")
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no state dict: it holds one {type(state).__name__}")
    if odd := [str(key) for key, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} is no state dict: no tensor is at {_first(odd)}")
    return dict(state)


def check_fit(expected: Mapping[str, Tensor], state: Mapping[str, Any], what: str | Path) -> None:
    """Raise ValueError, with the first few keys, unless weights fit an architecture key by key.

    Args:
        expected: the architecture's own state dict.
        state: the weights.
        what: a name for them, for the message.

    >>> check_fit({"a": torch.zeros(2)}, {"b": torch.zeros(2)}, "x.pth")
    Traceback (most recent call last):
    ...
    ValueError: x.pth does not fit its architecture: 1 missing: a; 1 unexpected: b
    """
    shapes = {k: tuple(v.shape) if isinstance(v, Tensor) else "no tensor" for k, v in state.items()}
    common = [(key, tuple(value.shape)) for key, value in expected.items() if key in state]
    faults = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [str(key) for key in state if key not in expected],
        "of another shape": [
            f"{key} {shapes[key]}, not {shape}" for key, shape in common if shapes[key] != shape
        ],
    }
    if said := [f"{len(keys)} {fault}: {_first(keys)}" for fault, keys in faults.items() if keys]:
        raise ValueError(f"{what} does not fit its architecture: {'; '.join(said)}")


def _first(keys: list[str]) -> str:
    return ", ".join([*keys[:SHOWN], *["..."] * (len(keys) > SHOWN)])
