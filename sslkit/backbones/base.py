"""What a backbone is, and how one is described in plain data and built again from it."""

import sys
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Images to features; the part of a method that is kept after pretraining.

    A subclass sets ``feature_dim`` and writes ``feature_map`` and ``init_args``; one that lets
    its layers be evaluated sets ``layers`` and writes ``feature_maps`` too.

    Attributes:
        feature_dim: width D of the features.
        layers: names of the layers whose maps can be had, from the first to the last.
    """

    feature_dim: int
    layers: tuple[str, ...] = ("last",)

    @abstractmethod
    def feature_map(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images to the last feature map, (N, C, h, w)."""

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) normalised images to the map of each of ``layers``, in one pass."""
        return [self.feature_map(images)]

    @abstractmethod
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments that build this architecture again, as plain data."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images to features, (N, feature_dim): global average pool."""
        return self.feature_map(images).mean((2, 3))

    def export_state(self) -> dict[str, Tensor]:
        """The weights under the names that the architecture's home library uses."""
        return self.state_dict()

    def load_exported(self, state: dict[str, Tensor]) -> None:
        """Load what ``export_state`` gave; raises RuntimeError where a name or shape is off."""
        self.load_state_dict(state)


def describe(backbone: Backbone) -> dict[str, Any]:
    """The architecture as plain data: ``{"class_path": ..., "init_args": {...}}``.

    >>> from sslkit.backbones import ResNet9
    >>> describe(ResNet9(width=8))
    {'class_path': 'sslkit.backbones.ResNet9', 'init_args': {'width': 8}}
    """
    kind = type(backbone)
    module = "sslkit.backbones" if kind.__module__.startswith("sslkit.") else kind.__module__
    return {"class_path": f"{module}.{kind.__qualname__}", "init_args": backbone.init_args()}


def build(description: dict[str, Any]) -> Backbone:
    """A backbone with fresh weights from what :func:`describe` gave.

    The description may come from a stranger's file, so nothing is imported for it: the class
    is looked up in modules that are loaded already.

    Raises:
        ValueError: the class is not in a loaded module, is not a Backbone, or does not take
            these arguments.

    >>> build({"class_path": "sslkit.backbones.ResNet9", "init_args": {"width": 8}}).feature_dim
    64
    """
    path = description.get("class_path", "")
    module, _, name = str(path).rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, Backbone)):
        raise ValueError(
            f"no Backbone {path!r} in the modules that are loaded: import its module first"
        )
    try:
        return kind(**description.get("init_args", {}))
    except TypeError as error:
        raise ValueError(f"{path} cannot be built: {error}") from None


def title_of(backbone: Backbone) -> str:
    """The architecture in a few words.

    >>> from sslkit.backbones import Embedder, ResNet9
    >>> title_of(Embedder(ResNet9(8), dim=64))
    'Embedder(backbone=ResNet9(width=8), dim=64, normalize=True)'
    """
    return _title(describe(backbone))


def _title(value: Any) -> str:
    if not isinstance(value, dict) or "class_path" not in value:
        return str(value)
    args = ", ".join(f"{k}={_title(v)}" for k, v in value["init_args"].items() if v)
    return f"{value['class_path'].rpartition('.')[2]}({args})"
