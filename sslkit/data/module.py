"""The data of a pretraining run, by name."""

import os
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from sslkit.data.array import ArrayDataset
from sslkit.data.class_batches import ClassBatches, check_per_class, held_out_rows
from sslkit.data.datasets import DATASETS
from sslkit.data.loader import BatchOrder, Loader
from sslkit.data.training_images import TrainingImages, decoded, training_images

RESIDENT_BYTES = 2 * 2**30


class DataModule(pl.LightningDataModule):
    """A data set, on the training device if it is small, streamed by workers if not.

    Args:
        name: ``cifar10``, ``cifar100``, ``fashion_mnist``, ``stl10``, ``shapes``, or
            ``folder`` for any directory of images, nested or flat; or a set of files that
            :func:`load_splits` knows, such as ``cub200``, ``flowers102`` or ``classes:DIR``, of
            which the train split is taken, and those classes that it shows.
        root: where the data lies; by default the environment's ``SSLKIT_DATA``, then
            ``~/.cache/sslkit/data``. A ``folder`` has no default.
        split: ``train``, or another split that the set has (stl10: ``unlabeled``).
        size: pixels of a side that images are resized to; by default the set's own, 224 where
            files are read.
        limit: take the first ``limit`` images only.
        batch_size: images a step, on each process.
        per_class: images of each class in a batch, as :class:`ClassBatches` draws them; by
            default whatever a shuffled order brings.
        held_out: so many images of each class come in no batch, for a method that judges itself
            on them; with per_class only. Which they are, :attr:`held_out_rows`, depends on the
            labels alone, and not on the run's seed.
        resident: keep the set as uint8 on the training device; ``auto`` does up to 2 GiB.
        workers: worker processes of a streamed set; by default one a core, at most 8.

    Raises:
        ValueError: a name, split or size that is not there, a set of several labels an image,
            or a batch that the set cannot fill.
        FileNotFoundError: the data is not where it was looked for and cannot be downloaded.

    >>> data = DataModule("shapes", limit=64, batch_size=16)
    >>> data.setup("fit"); len(data.dataset)
    64
    """

    def __init__(
        self,
        name: str = "shapes",
        *,
        root: str | None = None,
        split: str = "train",
        size: int | None = None,
        limit: int | None = None,
        batch_size: int = 256,
        per_class: int | None = None,
        held_out: int = 0,
        resident: bool | Literal["auto"] = "auto",
        workers: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if per_class is not None:
            check_per_class(per_class, batch_size)
        if held_out < 0:
            raise ValueError(f"held_out must be at least 0, not {held_out}")
        if held_out and per_class is None:
            raise ValueError(f"held_out {held_out} is so many images of a class: set per_class")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be at least 0, not {workers}")
        self.name: str = name
        self.root, self.split, self.size = root, split, size
        self.limit, self.batch_size, self.resident = limit, batch_size, resident
        self.per_class, self.held_out = per_class, held_out
        self.workers = min(os.cpu_count() or 1, 8) if workers is None else workers
        self.dataset: TrainingImages | None = None  # from setup on
        self.loader: Loader | None = None
        self.position = 0

    def prepare_data(self) -> None:
        """Download once, on one process."""
        fetched = self.name in DATASETS or self.name.startswith("hf:")
        if self.dataset is None and fetched and self.name not in ("folder", "shapes"):
            training_images(self.name, self.split, root=self.root, limit=self.limit)

    def setup(self, stage: str) -> None:
        """Read the set, or scan the folder; decode what is to be resident."""
        if self.dataset is None:
            self.seed = torch.initial_seed() % 2**32
            dataset = training_images(
                self.name, self.split, root=self.root, size=self.size, limit=self.limit
            )
            if not isinstance(dataset, ArrayDataset) and self._fits(dataset):
                if self.per_class is not None:
                    self._order(dataset)  # what it refuses is said before the minutes it takes
                dataset = decoded(dataset, self.workers)
            self.dataset = dataset

    def _fits(self, dataset: TrainingImages) -> bool:
        if self.resident == "auto":
            if isinstance(dataset, ArrayDataset):
                return dataset.images.nbytes <= RESIDENT_BYTES
            return len(dataset) * 3 * dataset.size**2 <= RESIDENT_BYTES
        return self.resident

    def order(self, rank: int = 0, world_size: int = 1) -> BatchOrder:
        """The batches of an epoch, on one of so many processes; from ``setup`` on.

        Raises:
            ValueError: the set cannot fill such batches, as its :class:`BatchOrder` or
                :class:`ClassBatches` says.
        """
        assert self.dataset is not None
        return self._order(self.dataset, rank, world_size)

    @property
    def held_out_rows(self) -> Tensor:
        """The rows that come in no batch, class by class, ``held_out`` of each; from ``setup`` on.

        (0,) where none are held out.
        """
        assert self.dataset is not None
        return self._held_out(self.dataset)

    def _held_out(self, dataset: TrainingImages) -> Tensor:
        labels = getattr(dataset, "labels", None)
        if not self.held_out or labels is None:
            return torch.empty(0, dtype=torch.int64)
        return held_out_rows(labels, self.held_out)

    def _order(self, dataset: TrainingImages, rank: int = 0, world_size: int = 1) -> BatchOrder:
        if self.per_class is None:
            return BatchOrder(
                len(dataset), self.batch_size, seed=self.seed, rank=rank, world_size=world_size
            )
        return ClassBatches(
            getattr(dataset, "labels", None),
            self.batch_size,
            self.per_class,
            classes=dataset.classes,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            held_out=self._held_out(dataset),
        )

    def train_dataloader(self) -> Loader:
        """A :class:`Loader` over this process's part."""
        rank, world_size, device = 0, 1, torch.device("cpu")
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            device = self.trainer.strategy.root_device
        if isinstance(self.dataset, ArrayDataset) and self._fits(self.dataset):
            self.dataset = self.dataset.to(device)
        assert self.dataset is not None
        order = self.order(rank, world_size)
        if self.trainer is not None:
            order.set_epoch(self.trainer.current_epoch)
        self.loader = Loader(self.dataset, order, workers=self.workers)
        self.loader.resume_at(self.position)
        self.position = 0
        return self.loader

    def state_dict(self) -> dict[str, int]:
        if self.loader is None:
            return {"seed": self.seed, "position": 0}
        batches = len(self.loader)  # of an epoch, unless the trainer's limit cuts it shorter
        if self.trainer is not None:
            batches = int(min(batches, self.trainer.num_training_batches))
        return {"seed": self.seed, "position": self.loader.position % batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seed, self.position = state["seed"], state["position"]
