"""Deep metric learning: any loss over labelled embeddings, with any miner."""

import copy
import inspect
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from sslkit import losses
from sslkit.backbones import Backbone, Embedder, describe
from sslkit.embeddings import check_at_least, unit
from sslkit.methods.base import Batch, Method, take_weights, under
from sslkit.training import Optimizer
from sslkit.views import View


class MetricLearning(Method):
    """Images of one class attract, those of others repel, as the loss says.

    What is trained and kept is an :class:`~sslkit.backbones.Embedder`: the backbone with a linear
    embedding. Batches of P classes x K images, which most losses want, are the data's
    ``per_class``.

    Args:
        backbone: the network under the embedding.
        view: any number of views an image, such as ``SupervisedView``.
        optimizer: the optimiser and its schedule.
        loss: from embeddings (N, D) and labels (N,) to a scalar, such as
            ``sslkit.losses.TripletMarginLoss`` with ``sslkit.miners.semi_hard``. A batch in which
            it finds no pair or triplet has the loss 0 and a gradient of 0.
        embedding_dim: width D of the embeddings.
        normalize: embeddings of length 1. The N-pair loss, which bounds their length by its own
            penalty, takes them without.
        freeze_batch_norm: leave statistics, scales and shifts of the backbone's BatchNorms as
            they are, as is usual from pretrained weights with small batches.
        backbone_lr: the backbone's learning rate as a part of the embedding's; at 0, and with
            ``freeze_batch_norm``, the backbone stays as it is.

    Raises:
        ValueError: a loss of other arguments, an embedding_dim below 1, or a negative
            backbone_lr; when training begins, data without labels.
    """

    backbone: Embedder
    min_batch_size = 2

    def __init__(
        self,
        backbone: Backbone,
        view: View,
        optimizer: Optimizer | None = None,
        *,
        loss: nn.Module,
        embedding_dim: int = 128,
        normalize: bool = True,
        freeze_batch_norm: bool = False,
        backbone_lr: float = 1.0,
    ) -> None:
        check_at_least(0, backbone_lr=backbone_lr)
        super().__init__(Embedder(backbone, embedding_dim, normalize=normalize), view, optimizer)
        check_loss(loss, self.backbone)
        self.loss = loss
        self.freeze_batch_norm, self.backbone_lr = freeze_batch_norm, backbone_lr
        if freeze_batch_norm:
            for norm in self._norms():
                norm.requires_grad_(False)
            self.train()

    def prepare(self, dataset: Dataset, batch_size: int, world_size: int = 1) -> None:
        labels = self._of_labels(dataset, "labels")
        images = labels.unique(return_counts=True)[1]
        if len(images) < 2 or images.max() < 2:
            raise ValueError(
                f"{type(self).__name__} needs 2 classes or more, and one of 2 images or more: the "
                f"data has {len(labels):,} images of {len(images):,} class(es)"
            )
        super().prepare(dataset, batch_size, world_size)

    def start_from(self, backbone: Backbone) -> None:
        """Take the weights of another backbone, with those of its embedding where it has the same.

        Raises:
            ValueError: another architecture.
        """
        if describe(backbone) == describe(self.backbone):
            take_weights(self.backbone, backbone)
        else:
            take_weights(self.backbone.backbone, under(backbone))

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        embeddings = self.backbone(torch.cat(batch.views))
        return {"loss": self.loss(embeddings, batch.labels.repeat(len(batch.views)))}

    def rates(self) -> dict[nn.Module, float]:
        return {self.backbone.backbone: self.backbone_lr}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.freeze_batch_norm:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [m for m in self.backbone.modules() if isinstance(m, _BatchNorm)]


def check_loss(loss: nn.Module, embedder: Embedder) -> None:
    """Raise ValueError unless a loss takes embeddings and labels, and what its miner finds.

    A copy of it is tried on four rows.

    >>> from sslkit.backbones import ResNet9
    >>> check_loss(losses.NTXentLoss(), Embedder(ResNet9(4), 8))
    Traceback (most recent call last):
    ...
    ValueError: loss NTXentLoss does not take embeddings and labels; choose from AngularLoss, \
ContrastiveLoss, DDMLLoss, FacilityLocationLoss, LiftedStructureLoss, NPairAngularLoss, \
NPairLoss, SupConLoss, TripletMarginLoss
    """
    if not _takes_labels(type(loss)):
        raise ValueError(
            f"loss {type(loss).__name__} does not take embeddings and labels; choose from "
            f"{', '.join(metric_losses())}"
        )
    labels = torch.tensor([0, 0, 1, 1])
    rows = torch.arange(embedder.feature_dim) % 2 == labels[:, None]
    embeddings = unit(rows.float()) if embedder.normalize else rows.float()
    try:
        with torch.random.fork_rng(devices=[]):
            copy.deepcopy(loss).cpu()(embeddings, labels)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"loss {type(loss).__name__} cannot take embeddings {tuple(embeddings.shape)} and "
            f"labels (4,): {str(error).splitlines()[0]}"
        ) from error


def metric_losses() -> list[str]:
    """The names in ``sslkit.losses`` of the losses that take embeddings and labels.

    >>> "TripletMarginLoss" in metric_losses(), "NTXentLoss" in metric_losses()
    (True, False)
    """
    kinds = {name: getattr(losses, name) for name in losses.__all__}
    return [name for name, kind in kinds.items() if isinstance(kind, type) and _takes_labels(kind)]


def _takes_labels(kind: type[nn.Module]) -> bool:
    return list(inspect.signature(kind.forward).parameters)[1:3] == ["embeddings", "labels"]
