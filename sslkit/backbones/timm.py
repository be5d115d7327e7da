"""Any image model of timm (Wightman 2019, github.com/huggingface/pytorch-image-models) by name."""

from typing import Any

import timm
from torch import Tensor

from sslkit.backbones.base import Backbone


class Timm(Backbone):
    """A timm model without its classifier; ``forward`` is timm's own pooled feature.

    Args:
        name: a name of ``timm.list_models()``, with or without a pretrained tag.
        pretrained: download timm's weights.
        options: further arguments of ``timm.create_model``, such as ``img_size``.

    Raises:
        ValueError: no such model (the closest names are listed).

    >>> import torch
    >>> Timm("resnet10t").eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 512])
    """

    def __init__(
        self, name: str, *, pretrained: bool = False, options: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            close = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5]
            near = f"; near it: {', '.join(close)}" if close else ""
            raise ValueError(f"timm has no model named {name!r}{near}")
        self.name, self.options = name, options or {}
        model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **self.options)
        self.model = model
        self.feature_dim = getattr(model, "head_hidden_size", model.num_features)
        self.layers = tuple(info["module"] for info in model.feature_info)

    def feature_map(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, h, w); tokens of a transformer are laid on their grid."""
        return self.model.forward_intermediates(images, indices=1, intermediates_only=True)[-1]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return self.model.forward_intermediates(images, intermediates_only=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def init_args(self) -> dict[str, Any]:
        return {"name": self.name, "options": self.options}

    def export_state(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_exported(self, state: dict[str, Tensor]) -> None:
        self.model.load_state_dict(state)
