"""Relative position (Doersch et al. 2015, "Unsupervised Visual Representation Learning by Context
Prediction", arXiv:1505.05192)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sslkit.backbones import Backbone
from sslkit.heads import LateFusion
from sslkit.methods.base import Batch, Method
from sslkit.training import Optimizer
from sslkit.views.relative_position import NEIGHBOURS, RelativePositionView


class RelativePosition(Method):
    """On which of eight sides of the first patch does the second lie?

    Args:
        backbone: the network that is kept; it sees one patch at a time.
        view: the two patches.
        optimizer: the optimiser and its schedule.
        hidden_dim: width of the layer that the patches share, and of the one that fuses them.

    Raises:
        ValueError: a hidden_dim below 1.

    >>> from sslkit.backbones import ResNet9
    >>> view = RelativePositionView(32, patch=8, gap=2, jitter=1)
    >>> RelativePosition(ResNet9(4), view, hidden_dim=64).classifier.fused[-1].out_features
    8
    """

    n_views = 2
    targeted = True

    def __init__(
        self,
        backbone: Backbone,
        view: RelativePositionView,
        optimizer: Optimizer | None = None,
        *,
        hidden_dim: int = 4096,
    ) -> None:
        super().__init__(backbone, view, optimizer)
        classes = len(NEIGHBOURS)
        self.classifier = LateFusion(backbone.feature_dim, hidden_dim, parts=2, classes=classes)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        first, second = self.backbone(torch.cat(batch.views)).chunk(2)
        logits = self.classifier(torch.stack((first, second), 1))
        accuracy = (logits.argmax(1) == batch.targets).float().mean()
        return {"loss": F.cross_entropy(logits, batch.targets), "accuracy": accuracy}
