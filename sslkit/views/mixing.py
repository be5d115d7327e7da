"""Batch mixing: MixUp and CutMix, two images and their labels to one image and a soft target."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from kornia.augmentation import RandomCutMixV2, RandomMixUpV2
from kornia.geometry.bbox import infer_bbox_shape
from torch import Tensor, nn
from torch.distributions import Beta

from sslkit.embeddings import check_above, check_labels, check_tensor
from sslkit.views.noise import smooth_targets

Drawn = dict[str, Tensor]  # what kornia draws for a batch


class Mixed(NamedTuple):
    """A mixed batch: images (N, C, H, W) and targets (N, classes), each row of which adds up to 1.

    The targets are those that ``sslkit.losses.soft_cross_entropy`` takes.
    """

    images: Tensor
    targets: Tensor


class _BatchMixing(nn.Module, ABC):
    """Kornia's mixing with pairs, a gate an image and soft targets of our own."""

    pairs: str  # kornia's name of each image's partner

    def __init__(
        self, classes: int = 10, alpha: float = 1.0, p: float = 1.0, different_labels: bool = False
    ) -> None:
        super().__init__()
        if not isinstance(classes, int) or classes < 1:
            raise ValueError(f"classes must be a whole number, at least 1, not {classes!r}")
        check_above(0, alpha=alpha)
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability, in [0, 1], not {p}")
        self.classes, self.alpha, self.p = classes, alpha, p
        self.different_labels = different_labels
        self.mix = self.kornia()

    @abstractmethod
    def kornia(self) -> RandomMixUpV2 | RandomCutMixV2:
        """What mixes the pixels."""

    @abstractmethod
    def draw(self, shape: torch.Size) -> tuple[Drawn, Tensor]:
        """Kornia's parameters for a batch, and the share of its partner in each image, (N,)."""

    def forward(self, images: Tensor, labels: Tensor) -> Mixed:
        """(N, C, H, W) and (N,) or (N, classes) to a Mixed batch."""
        targets = smooth_targets(labels, self.classes, 0)
        check_tensor("images", images)
        if not images.is_floating_point() or images.ndim != 4 or 0 in images.shape[1:]:
            raise ValueError(
                f"images must be floating-point (N, C, H, W) with a pixel, not {images.dtype} "
                f"of shape {tuple(images.shape)}"
            )
        n, device = len(images), images.device
        if len(labels) != n:
            raise ValueError(f"labels must have a row for each of {n} images, not {len(labels)}")
        if self.different_labels:
            check_labels(labels, n)
        if not n:
            return Mixed(images, targets)
        drawn, share = self.draw(images.shape)
        drawn = {name: value.to(device) for name, value in drawn.items()}
        mixed = (torch.rand(n) < self.p).to(device)
        if self.different_labels:
            partner, others = _of_another_class(labels.to(device))
            mixed &= others > 0
            drawn[self.pairs] = partner.view_as(drawn[self.pairs])
        drawn["batch_prob"] = mixed.float()
        full = images.to(torch.promote_types(torch.float32, images.dtype))
        made = self.mix(full, params=drawn).to(images.dtype)
        share = torch.where(mixed, share.to(device), 0)[:, None]
        targets = targets.to(device)
        targets = (1 - share) * targets + share * targets[drawn[self.pairs].flatten()]
        return Mixed(made, targets)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_BatchMixing":
        """Nothing here is a tensor to move; kornia would draw in the dtype of the model."""
        return self

    def extra_repr(self) -> str:
        return (
            f"classes={self.classes}, alpha={self.alpha}, p={self.p}, "
            f"different_labels={self.different_labels}"
        )


def _of_another_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each label a uniformly drawn row with another one, and how many there are, each (N,).

    Sorted by label, the rows of other classes are, round the end, those after the row's class.
    """
    n = len(labels)
    order = labels.argsort(stable=True)
    _, row_class, sizes = labels.unique(return_inverse=True, return_counts=True)
    end, others = sizes.cumsum(0)[row_class], n - sizes[row_class]
    step = torch.randint(1 << 62, (n,)).to(labels.device) % others.clamp_min(1)
    return order[(end + step) % n], others


class MixUp(_BatchMixing):
    """Each image with the part w, its partner with 1 - w (Zhang et al. 2018, arXiv:1710.09412).

    w is from Beta(alpha, alpha), anew for each image, as is the partner, a permutation of the
    batch (an image may meet itself). Pixels are mixed by kornia's RandomMixUpV2, in float32 or
    wider, and keep their dtype; draws are made on the CPU, so a seed draws the same anywhere.

    Args:
        classes: how many classes.
        alpha: above 0; in the paper 1 on CIFAR and 0.2 on ImageNet. Small leaves images nearly
            whole (below 0.01 torch draws w = 1/2 too often).
        p: probability that an image is mixed; the others stay as they are, bit for bit.
        different_labels: draw each image's partner uniformly from those of another class. If
            the batch holds no other class the image stays as it is.

    Called with images, floating-point (N, C, H, W), and labels, integers (N,) or soft targets
    (N, classes) that add up to 1, so mixing follows smoothing and other mixing; returns
    :class:`Mixed`. It always mixes, in eval mode too.

    Raises:
        ValueError: a number out of range; in the call, images or labels of another shape or
            dtype, a label outside [0, classes) (reading it waits for the device), or soft
            labels with different_labels.

    >>> mixed = MixUp(3, alpha=0.2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 1]))
    >>> mixed.images.shape, mixed.targets.shape
    (torch.Size([4, 3, 8, 8]), torch.Size([4, 3]))
    """

    pairs = "mixup_pairs"

    def kornia(self) -> RandomMixUpV2:
        return RandomMixUpV2()

    def draw(self, shape: torch.Size) -> tuple[Drawn, Tensor]:
        drawn = self.mix.forward_parameters(shape)
        # Kornia's own weight, the partner's, is uniform.
        drawn["mixup_lambdas"] = 1 - Beta(self.alpha, self.alpha).sample(shape[:1])
        return drawn, drawn["mixup_lambdas"]


class CutMix(_BatchMixing):
    """A box of each image from its partner (Yun et al. 2019, arXiv:1905.04899).

    As :class:`MixUp`, whose arguments, call and errors it has, except for what is mixed: the
    box has sides of sqrt(1 - w) of the image's, rounded down to pixels, and lies anywhere
    inside. (In the paper it may stick out, and is then cut off.) The target's weights are the
    shares of the pixels really pasted. Kornia's RandomCutMixV2 draws and pastes the box.

    >>> mixed = CutMix(2)(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    >>> mixed.targets.sum(1)
    tensor([1., 1., 1., 1.])
    """

    pairs = "mix_pairs"

    def kornia(self) -> RandomCutMixV2:
        return RandomCutMixV2(beta=self.alpha, use_correct_lambda=True)  # without it, a warning

    def draw(self, shape: torch.Size) -> tuple[Drawn, Tensor]:
        drawn = self.mix.forward_parameters(shape)
        height, width = infer_bbox_shape(drawn["crop_src"][0])
        return drawn, height * width / (shape[-2] * shape[-1])
