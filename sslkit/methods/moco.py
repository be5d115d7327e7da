"""MoCo (He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
arXiv:1911.05722) and MoCo v2 (Chen et al. 2020, arXiv:2003.04297)."""

import copy
from itertools import chain

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from sslkit.backbones import Backbone
from sslkit.distributed import all_gather, gather_rows, world_size
from sslkit.losses import InfoNCELoss
from sslkit.methods.base import Batch, Method
from sslkit.training import Optimizer
from sslkit.views import View


class MoCo(Method):
    """A view's key, from a slow copy of the network, against a queue of earlier keys.

    The defaults are those of v2; v1 is ``projector_layers=1, temperature=0.07`` on
    ``MoCoV1Views``. Keys are made of a shuffled batch, so that BatchNorm sees other images beside
    a key than beside its query, and its statistics do not tell which are of one batch: several
    processes shuffle the batch among them; one process takes queries and keys through the network
    in ``splits`` groups, the keys' being of the shuffled batch. The copy moves once a batch, also
    where gradients are accumulated over several.

    Args:
        backbone: the network that is kept.
        view: two views an image, such as ``MoCoV2Views``.
        optimizer: the optimiser and its schedule.
        temperature: of InfoNCE, above 0.
        momentum: of the slow copy, in [0, 1); short runs want less than the paper's 0.999.
        queue_size: keys in the queue, a multiple of the images a step of all processes.
        projection_dim: width of the projections.
        projector_layers: linear layers of the projector, 1 or more, with ReLU between them.
        splits: groups of the batch where there is one process; the paper has 8 devices.

    Raises:
        ValueError: a value outside its range; when training begins, a batch that the splits do
            not divide or that does not divide the queue.
    """

    min_batch_size = 2
    n_views = 2
    queue: Tensor
    pointer: Tensor

    def __init__(
        self,
        backbone: Backbone,
        view: View,
        optimizer: Optimizer | None = None,
        *,
        temperature: float = 0.2,
        momentum: float = 0.999,
        queue_size: int = 65536,
        projection_dim: int = 128,
        projector_layers: int = 2,
        splits: int = 8,
    ) -> None:
        super().__init__(backbone, view, optimizer)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        if min(queue_size, projection_dim, projector_layers, splits) < 1:
            raise ValueError(
                "MoCo's sizes must be at least 1, not "
                f"{queue_size=}, {projection_dim=}, {projector_layers=}, {splits=}"
            )
        self.momentum, self.splits = momentum, splits
        dim = backbone.feature_dim
        hidden = [m for _ in range(projector_layers - 1) for m in (nn.Linear(dim, dim), nn.ReLU())]
        self.projector = nn.Sequential(*hidden, nn.Linear(dim, projection_dim))
        self.momentum_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.momentum_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection_dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.loss = InfoNCELoss(temperature, gather=False)  # DDP averages it over processes

    def prepare(self, dataset: Dataset, batch_size: int, world_size: int = 1) -> None:
        super().prepare(dataset, batch_size, world_size)
        if world_size == 1 and (batch_size % self.splits or batch_size < 2 * self.splits):
            raise ValueError(
                f"data.batch_size {batch_size} does not come apart into model.splits "
                f"{self.splits} equal groups of 2 images or more"
            )
        step, keys = batch_size * world_size, len(self.queue)
        if keys % step:
            below, above = keys // step * step, (keys // step + 1) * step
            fits = f"{below} or {above}" if below else f"{above}"
            raise ValueError(
                f"model.queue_size {keys} is no multiple of the {step} images a step: {fits} is"
            )

    def start_from(self, backbone: Backbone) -> None:
        """Take the weights of another backbone of the same architecture, for the slow copy too.

        Raises:
            ValueError: another architecture.
        """
        super().start_from(backbone)
        self.momentum_backbone.load_state_dict(self.backbone.state_dict())

    def on_fit_start(self) -> None:
        super().on_fit_start()
        dtype = next(self.momentum_backbone.parameters()).dtype
        if torch.finfo(dtype).bits < 32:  # too coarse for steps of 1 - momentum
            raise ValueError(
                f"MoCo's slow copy needs weights in 32 bits, not {dtype}: use a mixed precision "
                "such as trainer.precision bf16-mixed"
            )

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        view0, view1 = batch.views
        queries = self.projector(self._in_groups(self.backbone, view0))
        self.follow()
        keys = self.keys(view1)
        loss = self.loss(queries, keys, self.queue.clone())  # which push changes in place
        self.push(keys)
        return {"loss": loss}

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow copy a step towards the network."""
        slow = chain(self.momentum_backbone.parameters(), self.momentum_projector.parameters())
        fast = chain(self.backbone.parameters(), self.projector.parameters())
        for old, new in zip(slow, fast, strict=True):
            old.lerp_(new, 1 - self.momentum)

    @torch.no_grad()
    def keys(self, images: Tensor) -> Tensor:
        """The keys of (N, 3, h, w), unit rows (N, D), from a shuffled batch."""
        everything, own = gather_rows(images)
        order = torch.randperm(len(everything)).to(images.device)
        if world_size() > 1:
            dist.broadcast(order, 0)
        shuffled = everything[order[own]].contiguous(memory_format=torch.channels_last)
        features = self._in_groups(self.momentum_backbone, shuffled)
        keys = all_gather(F.normalize(self.momentum_projector(features).float()))
        return keys[order.argsort()[own]]

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """The keys of all processes take the places of the oldest."""
        keys = all_gather(keys)
        rows = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[rows] = keys.to(self.queue.dtype)
        self.pointer.add_(len(keys)).remainder_(len(self.queue))

    def _in_groups(self, backbone: nn.Module, images: Tensor) -> Tensor:
        groups = self.splits if world_size() == 1 else 1
        return torch.cat([backbone(part) for part in images.chunk(groups)])
