"""Training images that are held out: a draw of them, and what an embedding makes of it."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
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


def clusters(z: Tensor, k: int, *, rounds: int = 20) -> Tensor:
    """k-means of (M, d) by so many rounds of Lloyd's; (M,) cluster numbers.

    It begins with k of the rows, the same at each call. A cluster that runs empty stays where it
    is.

    >>> clusters(torch.tensor([[0.0], [9.0], [0.1], [9.1]]), 2).unique(return_counts=True)[1]
    tensor([2, 2])
    """
    generator = torch.Generator().manual_seed(0)
    centres = z[torch.randperm(len(z), generator=generator)[:k].to(z.device)]
    for _ in range(rounds):
        own = F.one_hot(torch.cdist(z, centres).argmin(1), len(centres)).to(z.dtype)  # (M, k)
        sizes = own.sum(0)[:, None]
        centres = torch.where(sizes > 0, own.T @ z / sizes.clamp_min(1), centres)
    return torch.cdist(z, centres).argmin(1)


def mutual_information(labels: Tensor, numbers: Tensor) -> Tensor:
    """Of two partitions (M,), normalised by the mean of their entropies; a scalar in [0, 1].

    1 where both have one part.

    >>> mutual_information(torch.tensor([0, 0, 1, 1]), torch.tensor([3, 3, 1, 1]))
    tensor(1.)
    """
    first, second = (F.one_hot(x.unique(return_inverse=True)[1]).float() for x in (labels, numbers))
    joint = first.T @ second / len(labels)
    rows, columns, both = (torch.special.entr(p).sum() for p in (joint.sum(1), joint.sum(0), joint))
    total = rows + columns
    shared = ((total - both) / total.clamp_min(1e-12) * 2).clamp(0, 1)
    return torch.where(total > 1e-6, shared, torch.ones_like(shared))


def class_distances(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine distance of two rows of a class, and of the centres of two classes.

    Args:
        z: (M, d), of length 1. labels: (M,), two classes, and two rows of each, at least.

    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> class_distances(z, torch.tensor([0, 0, 1, 1]))
    (tensor(0.), tensor(1.))
    """
    own = F.one_hot(labels.unique(return_inverse=True)[1]).to(z.dtype)  # (M, C)
    itself = torch.eye(len(z), device=z.device)
    pairs = own @ own.T - itself
    within = 1 - (pairs * (z @ z.T)).sum() / pairs.sum()
    centres = unit(own.T @ z)
    similar = centres @ centres.T
    n = len(centres)
    between = 1 - (similar.sum() - similar.diagonal().sum()) / (n * (n - 1))
    return within, between
