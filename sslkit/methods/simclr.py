"""SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning", arXiv:2002.05709)."""

import torch
from torch import Tensor

from sslkit.backbones import Backbone
from sslkit.heads import Projector
from sslkit.losses import NTXentLoss
from sslkit.methods.base import Batch, Method
from sslkit.training import Optimizer
from sslkit.views import View


class SimCLR(Method):
    """Two views of an image attract, all other images of the batch repel.

    Args:
        backbone: the network that is kept.
        view: two views an image, such as ``SimCLRViews``.
        optimizer: the optimiser and its schedule.
        temperature: of NT-Xent, above 0; the paper has 0.5 on CIFAR-10, 0.1 on ImageNet.
        projection_dim: width of the projections.
        hidden_dim: width of the projector's hidden layers; None for the feature's.
        projector_layers: linear layers of the projector.

    Raises:
        ValueError: a temperature that is not above 0.
    """

    min_batch_size = 2
    n_views = 2

    def __init__(
        self,
        backbone: Backbone,
        view: View,
        optimizer: Optimizer | None = None,
        *,
        temperature: float = 0.5,
        projection_dim: int = 128,
        hidden_dim: int | None = None,
        projector_layers: int = 2,
    ) -> None:
        super().__init__(backbone, view, optimizer)
        dim = backbone.feature_dim
        hidden_dim = dim if hidden_dim is None else hidden_dim
        self.projector = Projector(dim, hidden_dim, projection_dim, projector_layers)
        self.loss = NTXentLoss(temperature)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        z0, z1 = self.projector(self.backbone(torch.cat(batch.views))).chunk(2)
        return {"loss": self.loss(z0, z1)}
