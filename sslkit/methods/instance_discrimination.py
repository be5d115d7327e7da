"""Instance discrimination (Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric
Instance Discrimination", arXiv:1805.01978)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from sslkit.backbones import Backbone
from sslkit.distributed import all_gather
from sslkit.embeddings import full_precision
from sslkit.losses import nce
from sslkit.losses.streaming import log_sum_exp
from sslkit.methods.base import Batch, Method
from sslkit.training import Optimizer
from sslkit.views import View


class InstanceDiscrimination(Method):
    """Every image is a class of its own, and a memory bank of all images' projections classifies.

    The bank has an entry an image, a running mean of the image's own projections, written after
    the loss is taken. For the softmax it begins with the projections of the untrained network.
    The paper begins with random unit vectors: then images not met yet have nothing that holds
    them where the network puts them all, those met push them away from there, and short runs do
    not recover. Estimation keeps them, since its normalising constant is of the bank's beginning.

    Args:
        backbone: the network that is kept.
        view: one view an image, such as ``InstDiscView``.
        optimizer: the optimiser and its schedule.
        temperature: of the softmax over the bank, above 0.
        projection_dim: width of the projections.
        negatives: None for the softmax over the whole bank; a number for noise-contrastive
            estimation with so many entries drawn for each image (the paper has 4096).
        momentum: of an entry of the bank, in [0, 1); 0 replaces it, as the paper's text does.
        proximal: weight, at least 0, of the squared distance to the image's entry in the bank.
        random_start: whether the softmax, too, begins with random unit vectors.

    Raises:
        ValueError: a value outside its range; when training begins, no ``prepare`` before it, or a
            bank of another length than the data.
    """

    n_views = 1
    bank: Tensor | None
    log_z: Tensor

    def __init__(
        self,
        backbone: Backbone,
        view: View,
        optimizer: Optimizer | None = None,
        *,
        temperature: float = 0.07,
        projection_dim: int = 128,
        negatives: int | None = None,
        momentum: float = 0.5,
        proximal: float = 0.0,
        random_start: bool = False,
    ) -> None:
        super().__init__(backbone, view, optimizer)
        if not 0 < temperature < math.inf or not 0 <= momentum < 1 or not 0 <= proximal < math.inf:
            raise ValueError(
                "InstanceDiscrimination takes temperature above 0, momentum in [0, 1) and proximal "
                f"of 0 or more, not {temperature}, {momentum} and {proximal}"
            )
        if projection_dim < 1 or (negatives is not None and negatives < 1):
            raise ValueError(
                "projection_dim and negatives must be at least 1, not "
                f"{projection_dim} and {negatives}"
            )
        self.temperature, self.negatives = temperature, negatives
        self.momentum, self.proximal = momentum, proximal
        self.random_start = random_start or negatives is not None
        self.projector = nn.Linear(backbone.feature_dim, projection_dim)
        self.register_buffer("bank", None)
        self.register_buffer("log_z", torch.tensor(math.inf))  # until the first batch says it

    def prepare(self, dataset: Dataset, batch_size: int, world_size: int = 1) -> None:
        super().prepare(dataset, batch_size, world_size)
        length = len(dataset)  # type: ignore[arg-type]
        if length < 2:
            raise ValueError("a single image has none to be told from: the data needs 2 or more")
        if self.bank is None:
            generator = torch.Generator().manual_seed(0)
            shape = length, self.projector.out_features
            self.bank = F.normalize(torch.randn(shape, generator=generator)).to(self.device)
        self._check_length(len(self.bank), length)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.bank is not None:
            self._check_length(len(checkpoint["state_dict"]["bank"]), len(self.bank))

    @torch.no_grad()
    def on_train_start(self) -> None:
        if self.random_start or self.trainer.global_step:
            return
        assert self.seed is not None
        self.view.manual_seed(self.seed)
        batches = tqdm(
            self.trainer.train_dataloader, "the memory bank", delay=2, disable=None, leave=False
        )
        for batch in batches:  # the remainder of an epoch stays random until it is met
            images, index = batch.images.to(self.device), batch.index.to(self.device)
            (view,), _ = self.make_views(images)
            self._write(all_gather(self._projections(view)), all_gather(index))

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        (view,), index = batch.views, batch.index
        if self.bank is None:
            raise ValueError("there is no memory bank: call prepare, or train with a data module")
        projections = self._projections(view)
        bank = self.bank.float()
        own = (projections * bank[index]).sum(1) / self.temperature
        if self.negatives is None:
            loss = (log_sum_exp(projections, bank, temperature=self.temperature) - own).mean()
        else:
            loss = self._estimated(projections, bank, own)
        losses = {"loss": loss}
        if self.proximal:
            distance = (projections - bank[index]).square().sum(1).mean()
            losses = {"loss": loss + self.proximal * distance, "proximal": distance}
        self._remember(projections.detach(), index)
        return losses

    def _estimated(self, projections: Tensor, bank: Tensor, positive: Tensor) -> Tensor:
        """Noise-contrastive estimation; the first batch says the normalising constant."""
        noise = torch.randint(len(bank), (len(positive), self.negatives)).to(bank.device)
        with full_precision(projections):
            negatives = torch.einsum("nd,nmd->nm", projections, bank[noise]) / self.temperature
        with torch.no_grad():
            sums = all_gather(negatives.logsumexp((0, 1))[None])  # one a process
            drawn = len(sums) * negatives.numel()
            first = sums.logsumexp(0) - math.log(drawn / len(bank))
            self.log_z.copy_(torch.where(self.log_z.isinf(), first, self.log_z))
        return nce(positive - self.log_z, negatives - self.log_z, classes=len(bank))

    def _projections(self, view: Tensor) -> Tensor:
        return F.normalize(self.projector(self.backbone(view)).float())

    @torch.no_grad()
    def _remember(self, projections: Tensor, index: Tensor) -> None:
        """Move the entries of the images of all processes towards their projections."""
        assert self.bank is not None
        projections, index = all_gather(projections), all_gather(index)
        moved = self.bank[index].float().lerp(projections, 1 - self.momentum)
        self._write(F.normalize(moved), index)

    def _write(self, rows: Tensor, index: Tensor) -> None:
        assert self.bank is not None
        self.bank = self.bank.index_copy(0, index, rows.to(self.bank.dtype))

    @staticmethod
    def _check_length(bank: int, images: int) -> None:
        if bank != images:
            raise ValueError(
                f"the memory bank has {bank:,} entries, but the data has {images:,} images: "
                "go on with the data that the run began with, or begin anew"
            )
