"""The multi-class N-pair loss (Sohn 2016)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_at_least, check_labels, checked, full_precision
from sslkit.losses.pairwise import check_tuples, mined
from sslkit.miners import Pairs
from sslkit.miners.chosen import name_of


def n_pair(
    embeddings: Tensor, labels: Tensor, *, pairs: Pairs | None = None, l2: float = 0.0
) -> Tensor:
    """The multi-class N-pair loss (Sohn, Improved deep metric learning with multi-class N-pair
    loss objective, NIPS 2016).

    A class has one anchor a and one positive p: its first two rows. The mean over anchors of
    log(1 + sum over the other classes j of exp(a . p_j - a . p)), with dot products of the
    embeddings as they are given; the paper bounds their length by a penalty, l2. It is computed
    in float32 (float64 for float64 input), under autocast too.

    Args:
        embeddings: (N, D); not normalised here.
        labels: integers, (N,).
        pairs: take each of these with the same label as an anchor and its positive, first and
            second; the negatives of an anchor are the positives of the other labels. Memory for
            (P, P) numbers.
        l2: weight, at least 0, of the mean squared length of the anchors and positives.

    Returns:
        The loss, a scalar in nats, at least 0; 0, with zero gradient, if no class has two rows. An
        embedding that is not finite makes it NaN.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N integers,
            or a negative l2.

    >>> labels = torch.tensor([7, 7, 3, 3])
    >>> z = torch.eye(2)[[0, 0, 1, 1]]
    >>> n_pair(z, labels)  # log(1 + exp(0 - 1))
    tensor(0.3133)
    """
    check_at_least(0, l2=l2)
    (embeddings,) = checked(embeddings=embeddings)
    check_labels(labels, len(embeddings))
    first, second, valid = _first_two(labels) if pairs is None else _same(pairs)
    anchor, positive, label = embeddings[first], embeddings[second], labels[first]
    with full_precision(embeddings):
        logits = anchor @ positive.T  # (P, P)
    itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    left_out = ((label[:, None] == label) | ~valid) & ~itself
    own = torch.arange(len(logits), device=logits.device).masked_fill(~valid, -100)
    logits = logits.masked_fill(left_out, -math.inf)
    loss = F.cross_entropy(logits, own, reduction="sum", ignore_index=-100)
    if l2:
        square = (anchor.square() + positive.square()).sum(1)
        loss = loss + l2 / 2 * square.masked_fill(~valid, 0).sum()
    loss = loss / valid.sum().clamp_min(1)
    return loss + 0 * embeddings.sum()  # a row outside of all pairs may be NaN


def _first_two(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """N / 2 pairs of rows, all that can be; valid if they are the first two of a label."""
    ordered, order = labels.sort(stable=True)
    same = ordered[1:] == ordered[:-1]
    start = torch.ones_like(same)
    start[1:] = ~same[:-1]
    valid, place = (start & same).sort(descending=True)
    half = len(labels) // 2
    return order[place[:half]], order[place[:half] + 1], valid[:half]


def _same(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    check_tuples(Pairs, pairs)
    first, second = pairs.first[pairs.same], pairs.second[pairs.same]
    return first, second, torch.ones_like(first, dtype=torch.bool)


class NPairLoss(nn.Module):
    """The multi-class N-pair loss as a module; see :func:`n_pair`.

    Args:
        l2: at least 0.
        miner: from embeddings and labels to the pairs to take; None for the first two rows of
            each class.
        gather: take the rows of all processes. The value and, averaged over processes as DDP
            does, the gradient are those of the whole batch in one process.

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> NPairLoss()(9 * torch.eye(2)[labels], labels).item() < 1e-3
    True
    """

    def __init__(
        self,
        *,
        l2: float = 0.0,
        miner: Callable[[Tensor, Tensor], Pairs] | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        check_at_least(0, l2=l2)
        self.l2 = l2
        self.miner = miner
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, D) and (N,) to a scalar."""
        if self.gather:
            embeddings, labels = all_gather(embeddings), all_gather(labels)
        pairs = mined(self.miner, Pairs, embeddings, labels)
        return n_pair(embeddings, labels, pairs=pairs, l2=self.l2)

    def extra_repr(self) -> str:
        return f"l2={self.l2}, miner={name_of(self.miner)}, gather={self.gather}"
