"""What a view is: a module from a batch of images to the batches that an objective needs."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.distributed as dist
from kornia.enhance import denormalize, normalize
from torch import Tensor, nn

from sslkit.embeddings import check_tensor
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
    the seed and the number of calls, so that a run goes on where it was saved. Two views, or
    a view and its copy, draw the same from the same seed.

    Attributes:
        random: whether it draws at all; a view that does not has no use for the stream.

    Args:
        size: height and width of the views in pixels.
        normalize: the mean and standard deviation that the views end with, by name (a key of
            ``NORMALIZATIONS``) or as two sequences of 3; None leaves them in [0, 1].

    Raises:
        ValueError: a size below 1, a normalisation that is not there, or, of a call, images of
            another shape or kind.
    """

    random = True

    def __init__(self, size: int, normalize: str | Statistics | None = "imagenet") -> None:
        super().__init__()
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be at least 1 pixel, not {size!r}")
        if isinstance(normalize, str) and normalize not in NORMALIZATIONS:
            raise ValueError(
                f"no normalisation named {normalize!r}; choose from {', '.join(NORMALIZATIONS)}"
            )
        self.size, self.normalize = size, normalize
        if self.statistics and not _usable(self.statistics):
            raise ValueError(
                f"normalize must be a name, or 3 means and 3 deviations above 0, not {normalize}"
            )
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
        check_tensor("images", images)
        if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
            raise ValueError(f"images must be (N, 1 or 3, H, W), not {tuple(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images must be uint8 or float in [0, 1], not {images.dtype}")
        if images.is_floating_point():
            images = images.float()
            if images.numel() and (most := images.max().item()) > 2:
                raise ValueError(f"float images must be in [0, 1], not up to {most:g}")
        with self._alone(images.device), torch.autocast(images.device.type, enabled=False):
            return self.make(images.expand(-1, 3, -1, -1))

    def manual_seed(self, seed: int) -> Self:
        """Begin the stream of random numbers anew.

        >>> from sslkit.views import SupervisedView
        >>> view, images = SupervisedView(8), torch.rand(4, 3, 9, 9)
        >>> torch.equal(view.manual_seed(0)(images), view.manual_seed(0)(images))
        True
        """
        self._seed, self._calls = int(seed) % 2**63, 0
        return self

    @contextmanager
    def _alone(self, device: torch.device) -> Iterator[None]:
        """With random numbers of its own, in float32 whatever torch's defaults are."""
        dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            if self.random:
                self._begin(device)
            torch.set_default_dtype(torch.float32)
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_default_dtype(dtype)
                torch.set_float32_matmul_precision(precision)

    def _begin(self, device: torch.device) -> None:
        """Seed the generators that the call draws from by (seed, process, call)."""
        if self._seed is None:
            self._seed = torch.initial_seed() % 2**63
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        place = np.random.SeedSequence((self._seed, rank, self._calls))
        seed = int(place.generate_state(1, np.uint64)[0]) >> 1
        self._calls += 1
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index].manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        return torch.tensor([-1 if self._seed is None else self._seed, self._calls])

    def set_extra_state(self, state: Tensor) -> None:
        seed, self._calls = state.tolist()
        self._seed = None if seed < 0 else seed

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """As any module; a state without a stream, saved before views had one, keeps ours."""
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def statistics(self) -> Statistics | None:
        """The mean and deviation that the views end with, as numbers."""
        given = self.normalize
        return NORMALIZATIONS[given] if isinstance(given, str) else given

    def normalized(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], with the mean taken off and the deviation divided out."""
        return normalize(images, *_on(images, s)) if (s := self.statistics) else images

    def denormalize(self, images: Tensor) -> Tensor:
        """The inverse of ``normalized``: (N, 3, H, W) back to [0, 1]."""
        return denormalize(images, *_on(images, s)) if (s := self.statistics) else images


def unit(images: Tensor) -> Tensor:
    """uint8 or float images as float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _on(images: Tensor, statistics: Statistics) -> Tensor:
    return torch.tensor(statistics, dtype=images.dtype).to(images.device, non_blocking=True)


def _usable(statistics: Statistics) -> bool:
    if len(statistics) != 2 or not all(isinstance(part, Sequence) for part in statistics):
        return False
    mean, std = statistics
    return len(mean) == len(std) == 3 and min(std) > 0
