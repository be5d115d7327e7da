"""One short text that tells whether features are the same: of weights, data and view."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from sslkit.backbones import Backbone, describe
from sslkit.data import ArrayDataset
from sslkit.views import View

VERSION = 1  # of the code between image and feature: raised when it changes the numbers


def fingerprint(
    backbone: Backbone,
    dataset: Dataset,
    view: View,
    layers: Sequence[str] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> str:
    """32 hexadecimal digits (of SHA-256) that change with the features.

    They cover the architecture and every tensor of its state; the data: its bytes and labels
    where it is in memory, else the files' sizes, times and paths relative to the folder they
    share, and what the data set says by its own ``fingerprint``, and which images are queries; the
    view and its arguments; the layers; and the kind of device, as a GPU rounds in another way
    than a CPU.

    Raises:
        ValueError: a view that draws random numbers or holds tensors, or a data set with
            neither files nor a fingerprint: it says so.

    >>> from sslkit.backbones import ResNet9
    >>> from sslkit.views import EvaluationView
    >>> data = ArrayDataset(torch.zeros(5, 3, 4, 4, dtype=torch.uint8))
    >>> net = ResNet9(4)
    >>> before, same = (fingerprint(net, data, EvaluationView(4)) for _ in range(2))
    >>> with torch.no_grad():
    ...     _ = net.stem[0].weight[0, 0, 0, 0].add_(1)
    >>> before == same, before == fingerprint(net, data, EvaluationView(4))
    (True, False)
    """
    digest = _Digest()
    digest.plain(
        {
            "version": VERSION,
            "backbone": describe(backbone),
            "layers": None if layers is None else list(layers),
            "view": _described(view),
            "device": torch.device(device).type,
        }
    )
    for name, tensor in backbone.state_dict().items():
        digest.tensor(name, tensor)
    _add_data(digest, dataset)
    return digest.hash.hexdigest()[:32]


class _Digest:
    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def plain(self, value: Any) -> None:
        self.hash.update(json.dumps(value, sort_keys=True).encode() + b"\n")

    def tensor(self, name: str, tensor: Tensor) -> None:
        """Its name, type, shape and bytes; a view of many rows is copied part by part."""
        self.plain([name, str(tensor.dtype), list(tensor.shape)])
        for part in torch.atleast_1d(tensor.detach()).split(4096):
            self.hash.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _described(view: View) -> dict[str, Any]:
    """A view's class and arguments as plain data."""
    name = type(view).__name__
    if not isinstance(view, View) or view.random:
        raise ValueError(f"{name} is not a view that always gives the same: its features differ")
    own = {"_extra_state"}  # the stream of random numbers, of which it has no use
    given = {key: value for key, value in vars(view).items() if not key.startswith("_")}
    given |= {"training": None, "normalize": view.statistics}  # numbers, whatever their name
    if any(view.children()) or view.state_dict().keys() - own:
        raise ValueError(f"{name} holds tensors or modules: what it does is not in its arguments")
    try:
        json.dumps(given)
    except TypeError as error:
        raise ValueError(f"{name} has arguments that are no plain data: {error}") from error
    return {"class_path": f"{type(view).__module__}.{type(view).__qualname__}", "args": given}


def _add_data(digest: _Digest, dataset: Dataset) -> None:
    kind = type(dataset)
    about = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "n": len(dataset)}
    digest.plain(about | {"size": getattr(dataset, "size", None)})
    for name in ("labels", "queries"):
        if isinstance(values := getattr(dataset, name, None), Tensor):
            digest.tensor(name, values)
    own = getattr(dataset, "fingerprint", None) or getattr(dataset, "_fingerprint", None)
    paths = getattr(dataset, "paths", None)
    if isinstance(own, str):
        digest.plain(own)
    if paths:
        _add_files(digest, [os.path.abspath(path) for path in paths])
    elif isinstance(own, str):
        return
    elif isinstance(dataset, ArrayDataset):
        digest.tensor("images", dataset.images)
    elif isinstance(dataset, Subset):
        digest.plain(list(map(int, dataset.indices)))
        _add_data(digest, dataset.dataset)
    else:
        raise ValueError(f"a {kind.__name__} has neither paths nor a fingerprint of its images")


def _add_files(digest: _Digest, paths: list[str]) -> None:
    """The path of each below the folder that all share, its bytes, and when it was written."""
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    for path in paths:
        state = os.stat(path)
        digest.plain([path[len(root) :], state.st_size, state.st_mtime_ns])
