"""The features of both splits of a set, extracted once for all protocols and layers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset

from sslkit.backbones import Backbone
from sslkit.data import Splits
from sslkit.evaluation.cache import cached_features, features_on_disk
from sslkit.evaluation.features import Features
from sslkit.views import View

NAMES = ("train", "test")


class SharedFeatures:
    """What is extracted when it is first asked for; an error too is kept, and raised again.

    Args:
        backbone, view, layers, device, distributed: as of :func:`cached_features`.
        splits: the set. data: its name. cache: the folder of features, or None.

    >>> from sslkit.backbones import ResNet9
    >>> from sslkit.data import ArrayDataset
    >>> from sslkit.views import EvaluationView
    >>> data = ArrayDataset(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.arange(5))
    >>> splits = Splits(data, data, "zeros", "accuracy", None, "")
    >>> shared = SharedFeatures(ResNet9(4), EvaluationView(8), splits, "zeros")
    >>> shared.test_at_hand() is None, shared.both()[1].features.shape
    (True, torch.Size([5, 32]))
    >>> shared.test_at_hand() is shared.both()[1]
    True
    """

    def __init__(
        self,
        backbone: Backbone,
        view: View,
        splits: Splits,
        data: str,
        *,
        layers: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        cache: str | Path | None = None,
        distributed: bool = False,
    ) -> None:
        self.backbone, self.view, self.splits, self.data = backbone, view, splits, data
        self.layers, self.device, self.cache = layers, device, cache
        self.distributed = distributed
        self._kept: list[dict[str, Features]] | Exception | None = None

    def both(self, layer: str = "") -> tuple[Features, Features]:
        """Of training and of test images, of a layer; of "" those of the backbone.

        Raises:
            ValueError, OSError, RuntimeError: as :func:`cached_features`.
        """
        if self._kept is None:
            both = (self.splits.train, self.splits.test)
            try:
                self._kept = [self._of(*each) for each in zip(NAMES, both, strict=True)]
            except (ValueError, OSError, RuntimeError) as error:
                self._kept = error
        if isinstance(self._kept, Exception):
            raise self._kept
        train, test = self._kept
        return train[layer], test[layer]

    def test_at_hand(self, layer: str = "") -> Features | None:
        """Of test images, where they were extracted before or are on disk; else None."""
        if isinstance(self._kept, list):
            return self._kept[1][layer]
        options = {"layers": self.layers, "device": self.device}
        found = features_on_disk(self.cache, self.backbone, self.splits.test, self.view, **options)
        return found and found[layer]

    def _of(self, name: str, split: Dataset) -> dict[str, Features]:
        return cached_features(
            self.cache,
            self.backbone,
            split,
            self.view,
            layers=self.layers,
            device=self.device,
            distributed=self.distributed,
            about={"data": self.data, "split": name},
            progress=f"{self.data} {name} features",
        )
