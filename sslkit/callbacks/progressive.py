"""Small views first, full size last (progressive resizing)."""

import copy
from collections.abc import Sequence

import pytorch_lightning as pl
import torch

from sslkit.views.augment import Augment


class ProgressiveResizing(pl.Callback):
    """Trains on small views first, which cost less, and on the view's own size at the end.

    The first steps are divided evenly among ``sizes``, in order. A size depends on the step alone,
    so that a resumed run goes on with the same. Evaluation and the exported card keep the full
    size. Where several views have sizes of their own (multi-crop) all shrink by the same factor.
    Howard's entry to DAWNBench (2018) trained so; Touvron et al. 2019 (arXiv:1906.06423) say why
    the last epochs must be of the size that is used afterwards.

    Args:
        sizes: pixels of a side, each smaller than the view's.
        share: of all steps that are trained on small views, above 0 and below 1.

    Raises:
        ValueError: a value outside its range; or, before training starts, a view that is not made
            of random crops, or a size that is not smaller than the view's or too small for the
            backbone.
    """

    def __init__(self, sizes: Sequence[int] = (16,), share: float = 0.7) -> None:
        if not sizes or min(sizes) < 1 or not 0 < share < 1:
            raise ValueError(
                "ProgressiveResizing takes one size or more of at least 1 pixel and a share "
                f"between 0 and 1, not {list(sizes)} and {share}"
            )
        self.sizes, self.share = list(sizes), share
        self._full: dict[Augment, int] = {}
        self._size = self._total = 0

    def check(self, method: pl.LightningModule) -> None:
        """Refuse a method whose view has no such sizes, or whose backbone cannot take them."""
        view, least = method.view, min(self.sizes)
        if max(self.sizes) >= view.size:
            raise ValueError(
                f"ProgressiveResizing takes sizes below the view's {view.size}, not {self.sizes}"
            )
        if not any(isinstance(module, Augment) for module in view.modules()):
            raise ValueError(
                f"ProgressiveResizing takes a view of random crops, not {type(view).__name__}"
            )
        backbone = copy.deepcopy(method.backbone).to("cpu", torch.float32).eval()
        try:
            with torch.no_grad():
                backbone(torch.zeros(2, 3, least, least))
        except RuntimeError as error:
            raise ValueError(
                f"{type(backbone).__name__} cannot take views of {least} pixels: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check(pl_module)
        view = pl_module.view
        self._full = {a: a.size for a in view.modules() if isinstance(a, Augment)}
        self._size, self._total = view.size, int(trainer.estimated_stepping_batches)

    def size_at(self, step: int, total: int, full: int) -> int:
        """Pixels of a side at a step of so many.

        >>> resizing = ProgressiveResizing([16, 24], share=0.5)
        >>> [resizing.size_at(step, 8, 32) for step in range(8)]
        [16, 16, 24, 24, 32, 32, 32, 32]
        """
        small = min(total * self.share, total - 1)  # the last step is of the full size
        return self.sizes[int(step / small * len(self.sizes))] if step < small else full

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        full = pl_module.view.size
        size = self.size_at(trainer.global_step, self._total, full)
        if size != self._size:
            self._resize(size / full)
            self._size = size

    def on_train_end(self, *_: object) -> None:
        self._resize(1.0)

    def on_exception(self, *_: object) -> None:
        self._resize(1.0)

    def _resize(self, factor: float) -> None:
        for augment, full in self._full.items():
            augment.resize(max(1, round(full * factor)))
