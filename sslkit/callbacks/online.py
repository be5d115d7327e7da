"""Signals of the representation while it is trained, and a warning when they say collapse."""

import copy
import logging

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from sslkit.data import gather
from sslkit.evaluation import (
    alignment,
    extract,
    feature_std,
    nearest,
    rankme,
    uniformity,
)
from sslkit.evaluation.metrics import accuracy
from sslkit.views import Targeted

logger = logging.getLogger("sslkit")

ADVICE = (
    "try a lower learning rate or a longer warm-up, a larger batch, stronger views; "
    "with SimCLR a lower temperature"
)


class OnlineSignals(pl.Callback):
    """Every few epochs, on a fixed subset of the training images: kNN accuracy, spread, rank.

    Logged as ``online/knn`` (percent; k = 20; only where the data has labels: some training
    images vote on others, the test split is not read), ``online/feature_std``,
    ``online/rankme``, ``online/uniformity`` and, for methods with two views,
    ``online/alignment``. Weights, BatchNorm statistics and random state stay as they were.

    Args:
        every_n_epochs: 0 turns it off.
        bank: images that vote. queries: images that are voted on, and that the other signals
            are taken from.

    Raises:
        ValueError: a negative period, or fewer than 2 queries or 1 bank image.
    """

    def __init__(self, every_n_epochs: int = 1, *, bank: int = 4000, queries: int = 1000) -> None:
        if every_n_epochs < 0 or bank < 1 or queries < 2:
            raise ValueError(
                "OnlineSignals takes every_n_epochs >= 0, bank >= 1 and queries >= 2, not "
                f"{every_n_epochs}, {bank} and {queries}"
            )
        self.every_n_epochs, self.bank, self.queries = every_n_epochs, bank, queries

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.current_epoch + 1 == trainer.max_epochs
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if not self.every_n_epochs or not (due or last) or not trainer.is_global_zero:
            return
        dataset = trainer.datamodule.dataset
        if len(dataset) < 4:  # two queries and two that vote
            return
        signals = self.measure(pl_module, dataset)
        for name, value in signals.items():
            pl_module.log(f"online/{name}", value, rank_zero_only=True, prog_bar=name == "knn")
        if collapsed(signals):
            logger.warning(
                "epoch %d: the features collapse (std %.3f, rank %.1f): %s",
                trainer.current_epoch,
                signals["feature_std"],
                signals["rankme"],
                ADVICE,
            )

    @torch.no_grad()
    def measure(self, method: pl.LightningModule, dataset: Dataset) -> dict[str, float]:
        """The signals of ``method.backbone`` on a fixed subset of ``dataset``."""
        queries = min(self.queries, len(dataset) // 2)
        rows = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
        chosen = Subset(dataset, rows[: queries + self.bank].tolist())
        features, labels = extract(method.backbone, chosen, method.eval_view, device=method.device)
        x = features[:queries]
        signals = {"feature_std": feature_std(x), "rankme": rankme(x), "uniformity": uniformity(x)}
        if (labels >= 0).all():
            signals["knn"] = self._knn(features, labels, queries)
        pairs = self._pairs(method, dataset, rows[:queries])
        return signals | ({"alignment": alignment(*pairs)} if pairs else {})

    @staticmethod
    def _knn(features: torch.Tensor, labels: torch.Tensor, queries: int) -> float:
        """Accuracy of the 20 nearest, or fewer in a small bank; no error where all collapses."""
        bank = features[queries:]
        similarity, rows = nearest(features[:queries], bank, min(20, len(bank)))
        votes = torch.zeros(queries, int(labels.max()) + 1)
        votes.scatter_add_(1, labels[queries:][rows], (similarity / 0.07).softmax(1))
        return accuracy(votes, labels[:queries])

    @staticmethod
    def _pairs(
        method: pl.LightningModule, dataset: Dataset, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The features of both views of some images; None for a view that makes no such pairs."""
        both: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        make = copy.deepcopy(method.view).manual_seed(0)
        for chunk in rows.split(256):
            views = make(gather(dataset, chunk)[0].to(method.device))
            if isinstance(views, Targeted | torch.Tensor) or len(views) != 2:
                return None
            for view, features in zip(views, both, strict=True):
                data = TensorDataset(view, torch.zeros(len(view)))
                features.append(
                    extract(method.backbone, data, nn.Identity(), device=method.device).features
                )
        return torch.cat(both[0]), torch.cat(both[1])


def collapsed(signals: dict[str, float]) -> bool:
    """Whether the features say nearly the same of every image, or have a single direction.

    >>> collapsed({"feature_std": 0.02, "rankme": 1.1})
    True
    """
    return signals["feature_std"] < 0.02 or signals["rankme"] < 1.5
