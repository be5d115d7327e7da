"""The features of the splits of a set, extracted once for all protocols and layers."""

from collections.abc import Sequence
from pathlib import Path

import torch

from sslkit.backbones import Backbone
from sslkit.data import Splits
from sslkit.evaluation.cache import cached_features, features_on_disk
from sslkit.evaluation.features import Features
from sslkit.views import View


class SharedFeatures:
    """Of a split, "train" or "test", what is extracted when it is first asked for.

    An error too is kept, and raised again.

    Args:
        backbone, view, layers, device, distributed: as of :func:`cached_features`.
        splits: the set. data: its name. cache: the folder of features, or None.

    >>> from sslkit.backbones import ResNet9
    >>> from sslkit.data import ArrayDataset
    >>> from sslkit.views import EvaluationView
    >>> data = ArrayDataset(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.arange(5))
    >>> splits = Splits(data, data, "zeros", "accuracy", None, "")
    >>> shared = SharedFeatures(ResNet9(4), EvaluationView(8), splits, "zeros")
    >>> shared.at_hand("test") is None, shared.of("test").features.shape
    (True, torch.Size([5, 32]))
    >>> shared.at_hand("test") is shared.of("test"), shared.at_hand("train")
    (True, None)
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
        self._kept: dict[str, dict[str, Features] | Exception] = {}

    def of(self, split: str, layer: str = "") -> Features:
        """Those of a split and of a layer; of "" those of the backbone.

        Raises:
            ValueError, OSError, RuntimeError: as :func:`cached_features`.
        """
        if split not in self._kept:
            try:
                self._kept[split] = self._extracted(split)
            except (ValueError, OSError, RuntimeError) as error:
                self._kept[split] = error
        kept = self._kept[split]
        if isinstance(kept, Exception):
            raise kept
        return kept[layer]

    def at_hand(self, split: str, layer: str = "") -> Features | None:
        """The same where they were extracted before or are on disk; else None."""
        kept = self._kept.get(split)
        if isinstance(kept, dict):
            return kept[layer]
        images = getattr(self.splits, split)
        options = {"layers": self.layers, "device": self.device}
        found = features_on_disk(self.cache, self.backbone, images, self.view, **options)
        return found and found[layer]

    def _extracted(self, split: str) -> dict[str, Features]:
        return cached_features(
            self.cache,
            self.backbone,
            getattr(self.splits, split),
            self.view,
            layers=self.layers,
            device=self.device,
            distributed=self.distributed,
            about={"data": self.data, "split": split},
            progress=f"{self.data} {split} features",
        )
