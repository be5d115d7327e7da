"""What a view is: a module from a batch of images to the batches that an objective needs."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.distributed as dist
from kornia.enhance import denormalize, normalize
from torch import Tensor, nn

from sslkit.views.transforms import Statistics

NORMALIZATIONS: dict[str, Statistics] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class Targeted(NamedTuple):
    """What the view of a pretext task returns: views, and the targets drawn with them."""

    views: tuple[Tensor, ...]
    targets: Tensor


class View(nn.Module, ABC):
    """Images to views, without gradient and in float32 whatever the trainer's precision.

    A subclass writes ``make``. Called with (N, C, H, W) images, uint8 or float in [0, 1], of
    one or three channels, it returns what ``make`` returns.

    The random numbers of a view are its own: call by call they follow from a seed, whatever
    else draws numbers meanwhile, and leave torch's generators as they were. The seed is that
    of ``manual_seed``, else what torch was last seeded with before the first call; the
    processes of a distributed run draw different views from one seed. ``state_dict`` holds
    the seed and the number of calls, so that a run goes on where it was saved.

    Args:
        size: height and width of the views in pixels.
        normalize: the mean and standard deviation that the views end with, by name (a key of
            ``NORMALIZATIONS``) or as two sequences of 3; None leaves them in [0, 1].

    Raises:
        ValueError: a size below 1, a normalisation that is not there, or, of a call, images of
            another shape or kind.
    """

    def __init__(self, size: int, normalize: str | Statistics | None = "imagenet") -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1 pixel, not {size}")
        if isinstance(normalize, str) and normalize not in NORMALIZATIONS:
            raise ValueError(
                f"no normalisation named {normalize!r}; choose from {', '.join(NORMALIZATIONS)}"
            )
        self.size, self.normalize = size, normalize
        self._seed: int | None = None
        self._calls = 0

    @abstractmethod
    def make(self, images: Tensor) -> Any:
        """(N, 3, H, W), uint8 or float32 in [0, 1], to a tuple of views, Targeted or a tensor."""

    def captions(self) -> tuple[list[str], ...]:
        """What the last call drew: for each view, the lines of text of each image, or nothing."""
        return ()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """(N, C, H, W), uint8 or float in [0, 1], to what ``make`` returns."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images must be (N, 1 or 3, H, W), not {tuple(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images must be uint8 or float in [0, 1], not {images.dtype}")
        if images.is_floating_point():
            images = images.float()
        with self._alone(images.device), torch.autocast(images.device.type, enabled=False):
            return self.make(images.expand(-1, 3, -1, -1))

    def manual_seed(self, seed: int) -> Self:
        """Begin the stream of random numbers anew.

        >>> from sslkit.views import SupervisedView
        >>> view, images = SupervisedView(8), torch.rand(4, 3, 9, 9)
        >>> torch.equal(view.manual_seed(0)(images), view.manual_seed(0)(images))
        True
        """
        self._seed, self._calls = int(seed), 0
        return self

    @contextmanager
    def _alone(self, device: torch.device) -> Iterator[None]:
        """With random numbers of its own, and float32 where a trainer made bfloat16 the default."""
        if self._seed is None:
            self._seed = torch.initial_seed()
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        place = np.random.SeedSequence((abs(self._seed), rank, self._calls))
        self._calls += 1
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(place.generate_state(1, np.uint64)[0]) >> 1)
            default = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
            try:
                yield
            finally:
                torch.set_default_dtype(default)

    def get_extra_state(self) -> dict[str, int | None]:
        return {"seed": self._seed, "calls": self._calls}

    def set_extra_state(self, state: dict[str, int | None]) -> None:
        self._seed, self._calls = state["seed"], state["calls"] or 0

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Stay as it is where a model moves: a view works in float32 where the images are."""
        return self

    @property
    def statistics(self) -> Statistics | None:
        """The mean and deviation that the views end with, as numbers."""
        given = self.normalize
        return NORMALIZATIONS[given] if isinstance(given, str) else given

    def normalized(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], with the mean taken off and the deviation divided out."""
        return normalize(images, *images.new_tensor(s)) if (s := self.statistics) else images

    def denormalize(self, images: Tensor) -> Tensor:
        """The inverse of ``normalized``: (N, 3, H, W) back to [0, 1]."""
        return denormalize(images, *images.new_tensor(s)) if (s := self.statistics) else images


def unit(images: Tensor) -> Tensor:
    """uint8 or float images as float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()
