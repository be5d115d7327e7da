"""Training images that are held out: a draw of them, and what an embedding makes of it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from sslkit.data import DataModule, gather
from sslkit.embeddings import full_precision, unit
from sslkit.training import evaluating


class HeldOut(NamedTuple):
    """Images of a data set that no batch shows: h rows of each of C classes, (C, h)."""

    dataset: Dataset
    rows: Tensor

    def draw(self, most: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Whole classes at random, up to so many images but 2 classes at least.

        Returns:
            images: uint8 (M, C, H, W), and their labels, (M,), on the CPU.
        """
        few = max(2, most // self.rows.shape[1])
        classes = torch.randperm(len(self.rows), generator=generator)[:few]
        return gather(self.dataset, self.rows[classes].flatten())


def held_out_of(data: DataModule | None, name: str) -> HeldOut:
    """Those of a data module.

    Args:
        data: set up; or None. name: the method's, for errors.

    Raises:
        ValueError: it holds out fewer than 2 images of each class, or cannot fill a batch.

    >>> held_out_of(None, "PADS")
    Traceback (most recent call last):
    ...
    ValueError: PADS judges itself on images that no batch shows: set data.per_class, and \
data.held_out to 2 or more, not 0
    """
    images = 0 if data is None else data.held_out
    if data is None or images < 2:
        raise ValueError(
            f"{name} judges itself on images that no batch shows: set data.per_class, and "
            f"data.held_out to 2 or more, not {images}"
        )
    data.order()  # a class of too few images is said here
    assert data.dataset is not None
    return HeldOut(data.dataset, data.held_out_rows.view(-1, images))


def check_single(name: str, world_size: int) -> None:
    """Raise ValueError unless there is one process.

    >>> check_single("PADS", 2)
    Traceback (most recent call last):
    ...
    ValueError: PADS runs on one process, not on 2: its policy sees one batch
    """
    if world_size > 1:
        raise ValueError(
            f"{name} runs on one process, not on {world_size}: its policy sees one batch"
        )


@torch.no_grad()
def features_of(
    backbone: nn.Module, view: nn.Module, images: Tensor, *, at_once: int = 64
) -> Tensor:
    """Features of uint8 (M, C, H, W) images, on the backbone's device, without autocast; (M, D).

    The backbone is in evaluation mode for it; its weights and BatchNorm statistics stay as they
    are, bit for bit.
    """
    first = next(backbone.parameters())
    with evaluating(backbone), full_precision(first):
        parts = [
            backbone(view(part.to(first.device)).to(first.dtype)) for part in images.split(at_once)
        ]
    return torch.cat(parts).float()


def neighbourhood_loss(z: Tensor, labels: Tensor, *, temperature: float = 0.1) -> Tensor:
    """How little of each row's softmax over the others falls on its class, on average.

    Of similarities by cosine over the temperature, the mean of -log of the share of a row's class:
    neighbourhood components analysis (Goldberger et al. 2004), with its log.

    Args:
        z: (M, d). labels: (M,), two of each at least.

    >>> z, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), [0, 0, 1, 1]
    >>> neighbourhood_loss(z, torch.tensor(labels), temperature=1.0)  # log(1 + 2 / e)
    tensor(0.5514)
    """
    z = unit(z)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    with full_precision(z):
        logits = (z @ z.T / temperature).masked_fill(itself, -math.inf)
    own = logits.masked_fill(labels[:, None] != labels, -math.inf)
    return (logits.logsumexp(1) - own.logsumexp(1)).mean()


@torch.no_grad()
def recall_at_1(z: Tensor, labels: Tensor) -> Tensor:
    """The share of rows whose nearest other by cosine has their label, a scalar in [0, 1]."""
    z = unit(z)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    with full_precision(z):
        nearest = (z @ z.T).masked_fill(itself, -math.inf).argmax(1)
    return (labels[nearest] == labels).float().mean()
