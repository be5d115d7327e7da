"""Rotation (Gidaris et al. 2018, "Unsupervised Representation Learning by Predicting Image
Rotations", arXiv:1803.07728), known as RotNet."""

import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.backbones import Backbone
from sslkit.methods.base import Batch, Method
from sslkit.training import Optimizer
from sslkit.views import RotationView


class Rotation(Method):
    """By how many quarter turns was the image turned? A linear classifier on the features.

    Args:
        backbone: the network that is kept; the paper has ``NIN`` on CIFAR-10.
        view: all four rotations of every image.
        optimizer: the optimiser and its schedule.
    """

    n_views = 1
    targeted = True

    def __init__(
        self, backbone: Backbone, view: RotationView, optimizer: Optimizer | None = None
    ) -> None:
        super().__init__(backbone, view, optimizer)
        self.classifier = nn.Linear(backbone.feature_dim, 4)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        (turned,), targets = batch.views, batch.targets
        logits = self.classifier(self.backbone(turned))
        accuracy = (logits.argmax(1) == targets).float().mean()
        return {"loss": F.cross_entropy(logits, targets), "accuracy": accuracy}
