"""Jigsaw (Noroozi and Favaro 2016, "Unsupervised Learning of Visual Representations by Solving
Jigsaw Puzzles", arXiv:1603.09246)."""

import torch.nn.functional as F
from torch import Tensor

from sslkit.backbones import Backbone
from sslkit.heads import LateFusion
from sslkit.methods.base import Batch, Method
from sslkit.training import Optimizer
from sslkit.views.jigsaw import JigsawView


class Jigsaw(Method):
    """By which permutation were the tiles shuffled? The paper's context-free network.

    Args:
        backbone: the network that is kept; it sees one tile at a time.
        view: the shuffled tiles.
        optimizer: the optimiser and its schedule.
        hidden_dim: width of the layer that the tiles share (fc6).
        fused_dim: width of the layer on all nine (fc7).

    Raises:
        ValueError: a width below 1.

    >>> from sslkit.backbones import ResNet9
    >>> view = JigsawView(32, tile=8, cell=10, permutations=24)
    >>> Jigsaw(ResNet9(4), view).classifier.fused[-1].out_features
    24
    """

    n_views = 1
    targeted = True

    def __init__(
        self,
        backbone: Backbone,
        view: JigsawView,
        optimizer: Optimizer | None = None,
        *,
        hidden_dim: int = 512,
        fused_dim: int = 4096,
    ) -> None:
        super().__init__(backbone, view, optimizer)
        classes, tiles = view.permutations.shape
        self.classifier = LateFusion(backbone.feature_dim, hidden_dim, tiles, classes, fused_dim)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        (tiles,), targets = batch.views, batch.targets
        features = self.backbone(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])
        logits = self.classifier(features)
        accuracy = (logits.argmax(1) == targets).float().mean()
        return {"loss": F.cross_entropy(logits, targets), "accuracy": accuracy}
