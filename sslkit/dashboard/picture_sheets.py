"""The callback that draws a run's pictures: its views at the start, what it knows as it learns."""

import io
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import Subset

from sslkit.dashboard.embedding_picture import drawable, embedding_picture
from sslkit.dashboard.neighbours import closest
from sslkit.dashboard.sheets import neighbour_sheet, views_sheet
from sslkit.data import gather
from sslkit.evaluation import extract
from sslkit.training import evaluating, write_atomically
from sslkit.views import View

logger = logging.getLogger("sslkit")


class PictureSheets(pl.Callback):
    """Save ``pictures/views.png``, ``neighbours.png``, ``embedding.png`` and the method's own.

    The views are drawn when the fit starts, from ``images`` training images through the module's
    own ``view``. The others are drawn every ``every_n_epochs`` epochs and at the end: the
    neighbours, the nearest by the cosine of the backbone's features among ``pool`` training images
    that stay the same; the embedding of these, where they have labels; and what the module's
    ``pictures`` makes of the first ``images`` of them.
    All are shown in wandb. Training is as it would be without: random states, every module's mode
    and BatchNorm statistics are the same before and after. Only rank zero draws.

    Args:
        run_dir: the run folder.
        every_n_epochs: 0 draws them at the end only.
        images: rows of a sheet.
        neighbours: nearest neighbours a row.
        pool: training images that are searched.
        batch_size: images through the backbone at once.

    Raises:
        ValueError: if ``every_n_epochs`` is negative or another number is below 1.

    >>> PictureSheets("runs/x", every_n_epochs=10).path("views").as_posix()
    'runs/x/pictures/views.png'
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        every_n_epochs: int = 0,
        images: int = 8,
        neighbours: int = 8,
        pool: int = 2000,
        batch_size: int = 256,
    ) -> None:
        if every_n_epochs < 0 or min(images, neighbours, pool, batch_size) < 1:
            numbers = (every_n_epochs, images, neighbours, pool, batch_size)
            raise ValueError(f"every_n_epochs must be at least 0, the others 1, not {numbers}")
        self.run_dir = Path(run_dir)
        self.every_n_epochs = every_n_epochs
        self.images, self.neighbours = images, neighbours
        self.pool, self.batch_size = pool, batch_size
        self._drawn_at = -1

    def path(self, name: str) -> Path:
        """Where a picture is saved."""
        return self.run_dir / "pictures" / f"{name}.png"

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the views; where they are no pictures of the images, say so and go on."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        dataset = trainer.datamodule.dataset
        with isolate_rng(), torch.no_grad():
            images, _ = gather(dataset, sample(len(dataset), self.images))
            made = pl_module.view(images.to(pl_module.device))
            try:
                sheet = sheet_of(pl_module.view, images, made)
            except ValueError as error:
                logger.warning("no picture of the views: %s", error)
                return
        self._save(trainer, "views", sheet)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the neighbours and the method's own if it is their epoch."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw them of the finished method."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        done = self._drawn_at == trainer.global_step  # by the last epoch's end
        if not trainer.is_global_zero or trainer.fast_dev_run or done:
            return
        self._drawn_at = trainer.global_step
        self._own(trainer, pl_module)
        self._neighbours(trainer, pl_module)

    def _own(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        dataset = trainer.datamodule.dataset
        images, _ = gather(dataset, sample(len(dataset), self.images))
        with isolate_rng(), torch.no_grad(), evaluating(pl_module):
            made = pl_module.pictures(images.to(pl_module.device))
        for name, columns in made.items():
            first, *others = columns.values()
            sheet = views_sheet(first, others, rows=len(images), titles=[*columns])
            self._save(trainer, name, sheet)

    def _neighbours(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        dataset = trainer.datamodule.dataset
        order = sample(len(dataset), self.pool)
        if len(order) < 2:
            return
        features, found = extract(
            pl_module.backbone,
            Subset(dataset, order.tolist()),
            pl_module.eval_view,
            device=pl_module.device,
            batch_size=self.batch_size,
        )
        queries = min(self.images, len(order))
        own, k = torch.arange(queries), min(self.neighbours, len(order) - 1)
        index, scores = closest(features[:queries], features, own, k)
        shown = torch.cat([own[:, None], index], dim=1)  # (Q, 1 + K)
        images, labels = gather(dataset, order[shown.flatten()])
        images, labels = images.unflatten(0, shown.shape), labels.view(shown.shape)
        classes = getattr(dataset, "classes", None)
        sheet = neighbour_sheet(images[:, 0], images[:, 1:], labels, classes, scores)
        self._save(trainer, "neighbours", sheet)
        if found.ndim == 1 and drawable(found):
            picture = io.BytesIO(embedding_picture(features, found, classes))
            self._save(trainer, "embedding", Image.open(picture))

    def _save(self, trainer: pl.Trainer, name: str, sheet: Image.Image) -> None:
        png = io.BytesIO()
        sheet.save(png, format="PNG")
        write_atomically(self.path(name), png.getvalue())
        for board in trainer.loggers:
            if isinstance(board, WandbLogger):
                board.log_image(f"pictures/{name}", [sheet], step=trainer.global_step)


def sheet_of(view: View, images: Tensor, made: Any) -> Image.Image:
    """Draw what a view has just made of (N, C, H, W) images, with what it drew and its targets.

    Raises:
        ValueError: as :func:`views_sheet`.

    >>> from sslkit.views import SimCLRViews
    >>> view, images = SimCLRViews(8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    >>> sheet_of(view, images, view(images)).mode
    'RGB'
    """
    views = getattr(made, "views", made)
    views = (views,) if isinstance(views, Tensor) else views
    return views_sheet(
        images,
        [_denormalized(view, batch) for batch in views],
        rows=len(images),
        captions=getattr(view, "captions", tuple)(),
        targets=getattr(made, "targets", None),
    )


def _denormalized(view: View, batch: Tensor) -> Tensor:
    """Pictures and tiles in colour in [0, 1] again; what else a view makes, as it is."""
    if batch.ndim not in (4, 5) or batch.shape[-3] != 3:
        return batch
    return view.denormalize(batch.flatten(0, -4)).view_as(batch)


def sample(size: int, n: int) -> Tensor:
    """The same n of ``size`` indices each time, in a random order; all where there are fewer.

    >>> sample(3, 8).sort().values
    tensor([0, 1, 2])
    """
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))[:n]
