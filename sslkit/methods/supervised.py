"""Supervised training with cross-entropy: the baseline at the same views, budget and backbone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from sslkit.backbones import Backbone
from sslkit.methods.base import Batch, Method
from sslkit.training import Optimizer
from sslkit.views import View


class Supervised(Method):
    """Which class is it? A linear classifier on the features of every view.

    Args:
        backbone: the network that is kept.
        view: any number of views an image, such as ``SupervisedView`` or, to be compared with
            SimCLR, ``SimCLRViews``.
        optimizer: the optimiser and its schedule.
        classes: classes of the data.

    Raises:
        ValueError: fewer than 2 classes; when training begins, data without labels or with
            another number of classes.
    """

    def __init__(
        self, backbone: Backbone, view: View, optimizer: Optimizer | None = None, *, classes: int
    ) -> None:
        super().__init__(backbone, view, optimizer)
        if classes < 2:
            raise ValueError(f"classes must be 2 or more, not {classes}")
        self.classifier = nn.Linear(backbone.feature_dim, classes)

    def prepare(self, dataset: Dataset, batch_size: int, world_size: int = 1) -> None:
        there, wanted = len(self._of_labels(dataset, "classes")), self.classifier.out_features
        if there != wanted:
            raise ValueError(f"model.classes is {wanted}, but the data has {there}")
        super().prepare(dataset, batch_size, world_size)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.classifier(self.backbone(torch.cat(batch.views)))
        labels = batch.labels.repeat(len(batch.views))
        accuracy = (logits.argmax(1) == labels).float().mean()
        return {"loss": F.cross_entropy(logits, labels), "accuracy": accuracy}
