"""What all methods share: views on the device, random state, logging, optimiser and schedule."""

import copy
import math
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from sslkit.backbones import Backbone, Embedder, describe, title_of
from sslkit.data import DataModule, Images, gather
from sslkit.training import Optimizer, warmup_decay
from sslkit.views import EvaluationView, Targeted, View


class Batch(NamedTuple):
    """What an objective is given.

    views: each (N, 3, h, w), normalised; a pretext task may make k N of N images, or tiles.
    targets: what a pretext task predicts, or None. labels: the data's, (N,), -1 where unknown.
    index: row numbers in the data, (N,).
    """

    views: tuple[Tensor, ...]
    targets: Tensor | None
    labels: Tensor
    index: Tensor


class Method(pl.LightningModule, ABC):
    """A backbone, a view and an optimiser; a subclass writes ``objective``.

    ``forward`` is the backbone. Each step seeds torch by (seed, process, epoch, step), so that
    the randomness of a step depends on its place alone and a resumed run repeats it.

    Args:
        backbone: what is trained, and kept.
        view: what turns a batch of images into views.
        optimizer: the optimiser and its schedule.

    Raises:
        ValueError: a view of another class than the method's constructor names.

    Attributes:
        min_batch_size: images a batch that the objective needs.
        n_views: batches of views that the objective takes; None for any number.
        targeted: whether the objective takes targets that the view makes.
        grayscale: whether the backbone is shown lightness alone, when it is evaluated too.
        config: the run's configuration as plain data; it is kept in checkpoints.
    """

    min_batch_size = 1
    n_views: int | None = None
    targeted = False
    grayscale = False

    def __init__(self, backbone: Backbone, view: View, optimizer: Optimizer | None = None) -> None:
        super().__init__()
        wanted = get_type_hints(type(self).__init__).get("view", View)
        if not isinstance(view, wanted):
            raise ValueError(
                f"{type(self).__name__} takes a view of class {wanted.__name__}, not "
                f"{type(view).__name__}"
            )
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.view = view
        self.optimizer = optimizer or Optimizer()
        self.eval_view = EvaluationView(view.size, view.normalize, grayscale=self.grayscale)
        self.seed: int | None = None
        self.config: dict[str, Any] = {}

    @abstractmethod
    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """The loss under the name "loss", and whatever else is to be logged, all scalars."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images to features, (N, backbone.feature_dim)."""
        return self.backbone(images)

    def prepare(self, dataset: Dataset, batch_size: int, world_size: int = 1) -> None:
        """Refuse what cannot be trained on; take from the data what the objective needs of it.

        It is called by :meth:`take` before the first step, by the command line before there is a
        run folder, and may be called again. A subclass that needs more of the data adds to it.

        Args:
            dataset: gives (uint8 image (C, H, W), label).
            batch_size: images a step, on each process.
            world_size: processes.

        Raises:
            ValueError: a batch that is too small, or a view that does not fit the images or the
                objective.
        """
        name = type(self).__name__
        if batch_size < self.min_batch_size:
            raise ValueError(
                f"data.batch_size {batch_size} is too small: {name} needs at least "
                f"{self.min_batch_size} images a batch"
            )
        n = min(2, batch_size, len(dataset))  # type: ignore[arg-type]
        images, _ = gather(dataset, torch.arange(n))
        self._check_views(copy.deepcopy(self.view).to("cpu").manual_seed(0)(images), n)

    def _of_labels(self, dataset: Dataset, what: str) -> Any:
        """The labels of a data set, or the names of their classes; ValueError without them."""
        if (found := getattr(dataset, what, None)) is None:
            raise ValueError(
                f"{type(self).__name__} needs labels, and the data has none (a folder's images "
                "have none, whatever its subfolders)"
            )
        return found

    def _check_views(self, made: Any, images: int) -> None:
        """Refuse views that the objective or the backbone cannot take."""
        name, maker = type(self).__name__, type(self.view).__name__
        targeted, (views, _) = isinstance(made, Targeted), _parts(made)
        if targeted != self.targeted:
            verb = "takes" if self.targeted else "does not take"
            raise ValueError(f"{name} {verb} targets beside the views: {maker} is not for it")
        if self.n_views not in (None, len(views)):
            raise ValueError(
                f"{name} takes {self.n_views} view(s) an image, but {maker} makes {len(views)}"
            )
        shapes = {tuple(view.shape) for view in views}
        if len(shapes) > 1 or (not targeted and any(shape[0] != images for shape in shapes)):
            raise ValueError(f"{name} takes views of one size, one an image: {maker} makes others")
        backbone = copy.deepcopy(self.backbone).to("cpu").eval()
        try:
            with torch.no_grad():
                backbone(self._ready(views[0].flatten(0, -4)))
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"{type(backbone).__name__} cannot take what {maker} makes, {shapes.pop()}: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule
        if stage == "fit" and data is not None:
            self.take(data, self.trainer.world_size)

    def take(self, data: DataModule, world_size: int = 1) -> None:
        """Prepare for the images of a data module, which is set up.

        A subclass that needs more of it than the images, such as what it holds out, adds to it.

        Raises:
            ValueError: as :meth:`prepare`.
        """
        self.prepare(data.dataset, data.batch_size, world_size)  # type: ignore[arg-type]

    def start_from(self, backbone: Backbone) -> None:
        """Take the weights of another backbone, or of that under an embedding, such as a run's.

        Raises:
            ValueError: another architecture.
        """
        take_weights(self.backbone, under(backbone))

    def rates(self) -> dict[nn.Module, float]:
        """Parts whose learning rate is not the optimiser's, and what it is multiplied by."""
        return {}

    def card(self) -> dict[str, Any]:
        """What identifies the backbone when it is loaded elsewhere, as plain data."""
        card = {
            "backbone": describe(self.backbone),
            "size": self.view.size,
            "normalize": self.view.normalize,
            "method": type(self).__name__,
        }
        return {**card, "grayscale": True} if self.grayscale else card

    def pictures(self, images: Tensor) -> dict[str, dict[str, Tensor]]:
        """What the method can show of itself: pictures by name, their columns by title.

        Args:
            images: uint8 (N, C, H, W), on the method's device; all modules are in evaluation mode.

        Returns:
            Columns of N pictures each, (N, 1 or 3, h, w), uint8 or float in [0, 1].
        """
        return {}

    def on_fit_start(self) -> None:
        if self.seed is None:
            self.seed = torch.initial_seed() % 2**32

    def training_step(self, images: Images, batch_idx: int) -> Tensor:
        place = (self.seed, self.global_rank, self.current_epoch, batch_idx)
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        torch.manual_seed(seed)
        self.view.manual_seed(seed)
        views, targets = self.make_views(images.images)
        losses = self.objective(Batch(views, targets, images.labels, images.index))
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "loss")
        # As a tensor: of a number Lightning makes one on the device, which waits for it each step.
        self.log("lr", torch.tensor(float(self.optimizers().param_groups[0]["lr"])))
        return losses["loss"]

    def make_views(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """What an objective is given of (N, C, H, W) images: the views, and the targets or None."""
        views, targets = _parts(self.view(images))
        return tuple(map(self._ready, views)), targets

    def _ready(self, view: Tensor) -> Tensor:
        """In the precision of the weights, which "bf16-true" lowers, and the layout of images."""
        view = view.to(next(self.backbone.parameters()).dtype)
        return view.contiguous(memory_format=torch.channels_last) if view.ndim == 4 else view

    def configure_optimizers(self) -> dict[str, Any]:
        trainer = self.trainer
        trainer.fit_loop.setup_data()
        total = trainer.estimated_stepping_batches
        if math.isinf(total) or total < 1:
            raise ValueError(
                f"the schedule needs an end after 1 step or more, not after {total}: set "
                "trainer.max_epochs or max_steps"
            )
        accumulated = trainer.accumulate_grad_batches
        per_step = trainer.train_dataloader.batch_size * trainer.world_size * accumulated
        per_epoch = math.ceil(trainer.num_training_batches / accumulated)
        warmup = min(round(self.optimizer.warmup_epochs * per_epoch), int(total))
        factor = partial(
            warmup_decay, warmup=warmup, total=int(total), schedule=self.optimizer.schedule
        )
        optimizer = self.optimizer.build(self, per_step, self.rates())
        schedule = {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sslkit"] = {
            **self.card(),
            "seed": self.seed,
            "config": self.config,
            "world_size": self.trainer.world_size,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seed = checkpoint["sslkit"]["seed"]


def under(backbone: Backbone) -> Backbone:
    """The backbone itself, without an embedding that is on it."""
    return backbone.backbone if isinstance(backbone, Embedder) else backbone


def take_weights(own: Backbone, other: Backbone) -> None:
    """Copy the weights of another backbone of the same architecture.

    Raises:
        ValueError: another architecture.

    >>> from sslkit.backbones import ResNet9
    >>> take_weights(ResNet9(4), ResNet9(8))
    Traceback (most recent call last):
    ...
    ValueError: the weights are of ResNet9(width=8), but the backbone is ResNet9(width=4)
    """
    if describe(own) != describe(other):
        raise ValueError(
            f"the weights are of {title_of(other)}, but the backbone is {title_of(own)}"
        )
    own.load_state_dict(other.state_dict())


def _parts(made: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The views and the targets, if any, of what a view returned."""
    views, targets = made if isinstance(made, Targeted) else (made, None)
    return (views,) if isinstance(views, Tensor) else tuple(views), targets
