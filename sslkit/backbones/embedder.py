"""A backbone with an embedding on top: what metric learning trains and keeps."""

from typing import Any

import torch
from torch import Tensor, nn

from sslkit.backbones.base import Backbone, build, describe
from sslkit.embeddings import unit


class Embedder(Backbone):
    """A backbone's features through a linear layer, by default to unit length.

    Its layers are the backbone's.

    Args:
        backbone: what makes the features; or its description, as ``describe`` gives it.
        dim: width D of the embeddings.
        normalize: bring them to length 1; one of length 0, which has no direction, stays 0.

    Raises:
        ValueError: a dim below 1, or below 2 where they are of length 1.

    >>> from sslkit.backbones import ResNet9
    >>> embedder = Embedder(ResNet9(4), dim=8).eval()
    >>> embedder(torch.rand(2, 3, 32, 32)).detach().norm(dim=1).round(decimals=4)
    tensor([1., 1.])
    """

    def __init__(
        self, backbone: Backbone | dict[str, Any], dim: int = 128, *, normalize: bool = True
    ) -> None:
        super().__init__()
        if dim < 1 + normalize:
            least = f"{1 + normalize}{' at length 1' if normalize else ''}"
            raise ValueError(f"the width of the embeddings must be at least {least}, not {dim}")
        self.backbone = build(backbone) if isinstance(backbone, dict) else backbone
        self.feature_dim, self.normalize = dim, normalize
        self.layers = self.backbone.layers
        self.embedding = nn.Linear(self.backbone.feature_dim, dim)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images to embeddings, (N, dim)."""
        return self.embed(self.backbone(images))

    def embed(self, features: Tensor) -> Tensor:
        """The backbone's features, (N, backbone.feature_dim), to embeddings, (N, dim)."""
        embeddings = self.embedding(features.to(self.embedding.weight.dtype))
        if not self.normalize:
            return embeddings
        return unit(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)))

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the backbone: methods that need its features call the two apart."""
        self.backbone.compile(*args, **options)

    def feature_map(self, images: Tensor) -> Tensor:
        return self.backbone.feature_map(images)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return self.backbone.feature_maps(images)

    def init_args(self) -> dict[str, Any]:
        return {
            "backbone": describe(self.backbone),
            "dim": self.feature_dim,
            "normalize": self.normalize,
        }
