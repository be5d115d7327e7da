"""What methods that choose or make negatives share: drawing rows, and a loss anchor by anchor."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.embeddings import length_of, unit
from sslkit.losses import ContrastiveLoss, LiftedStructureLoss, NPairLoss, TripletMarginLoss
from sslkit.miners.pairs import pair_masks


class Drawn(NamedTuple):
    """For each row of a batch another of its class, and some of other classes.

    valid: whether there are such, (N,). positive: row numbers, (N,). negatives: (N, M).
    """

    valid: Tensor
    positive: Tensor
    negatives: Tensor

    def mean(self, of_rows: Tensor) -> Tensor:
        """The mean of (N,) over the valid rows; 0 if there is none."""
        return of_rows.masked_fill(~self.valid, 0).sum() / self.valid.sum().clamp_min(1)


def draw(labels: Tensor, negatives: int) -> Drawn:
    """A positive and some negatives for each row, at random; negatives may come twice.

    >>> draw(torch.tensor([7, 7, 3]), 1).valid
    tensor([ True,  True, False])
    """
    positive, negative = pair_masks(labels)
    valid = positive.any(1) & negative.any(1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    mate = torch.where(valid[:, None], positive, itself).float().multinomial(1)
    others = torch.where(valid[:, None], negative, itself).float()
    return Drawn(valid, mate.squeeze(1), others.multinomial(negatives, replacement=True))


class Seen(NamedTuple):
    """What a loss says of negatives: (N,) of each anchor, and (N, M) how far each is kept off.

    ``kept`` is by how much a negative is beyond where the loss wants it; 0 where it is not.
    """

    loss: Tensor
    kept: Tensor


def of_triplets(loss: Any, z: Tensor, positive: Tensor, negatives: Tensor) -> Seen:
    """Of ``TripletMarginLoss``, rows z (N, d), their positives (N,), negatives (N, M, d)."""
    if loss.normalize:
        z, negatives = unit(z), unit(negatives.flatten(0, 1)).view_as(negatives)
    slack = _square(z, negatives) - _square(z, z[positive][:, None]) - loss.margin
    return Seen((-slack).relu().mean(1), slack.relu())


def of_pairs(loss: Any, z: Tensor, positive: Tensor, negatives: Tensor) -> Seen:
    """The same of ``ContrastiveLoss``."""
    near, slack = _square(z, z[positive][:, None]), _distance(z, negatives) - loss.margin
    terms = torch.cat([near, (-slack).relu().square()], 1)
    return Seen(terms.mean(1) / 2, slack.relu())


def of_lifted(loss: Any, z: Tensor, positive: Tensor, negatives: Tensor) -> Seen:
    """The same of ``LiftedStructureLoss``: the negatives of both rows of a pair repel."""
    near, far = _distance(z, z[positive][:, None]), _distance(z, negatives)
    repulsion = (loss.margin - far).logsumexp(1)
    violation = near.squeeze(1) + torch.logaddexp(repulsion, repulsion[positive])
    return Seen(violation.relu().square() / 2, (far - near - loss.margin).relu())


def of_n_pairs(loss: Any, z: Tensor, positive: Tensor, negatives: Tensor) -> Seen:
    """The same of ``NPairLoss``, less its penalty."""
    slack = (z * z[positive]).sum(1, keepdim=True) - (z[:, None] * negatives).sum(2)
    return Seen(F.pad(-slack, (1, 0)).logsumexp(1), slack.relu())


def _square(z: Tensor, others: Tensor) -> Tensor:
    """Squared distances of rows (N, d) from (N, M, d), (N, M)."""
    return (z[:, None] - others).square().sum(2)


def _distance(z: Tensor, others: Tensor) -> Tensor:
    """Distances of rows (N, d) from (N, M, d), (N, M); the gradient at distance 0 is 0."""
    square = _square(z, others)
    zero = square == 0
    return square.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


SEEN_BY: dict[type[nn.Module], Callable[[Any, Tensor, Tensor, Tensor], Seen]] = {
    ContrastiveLoss: of_pairs,
    TripletMarginLoss: of_triplets,
    LiftedStructureLoss: of_lifted,
    NPairLoss: of_n_pairs,
}

CHOSEN_FOR = (TripletMarginLoss, NPairLoss)


def check_chosen_for(name: str, loss: nn.Module) -> None:
    """Raise ValueError unless a method that chooses negatives can do it for a loss.

    >>> check_chosen_for("PADS", ContrastiveLoss())
    Traceback (most recent call last):
    ...
    ValueError: PADS is not for ContrastiveLoss; choose from TripletMarginLoss, NPairLoss
    """
    if type(loss) not in CHOSEN_FOR:
        names = ", ".join(kind.__name__ for kind in CHOSEN_FOR)
        raise ValueError(f"{name} is not for {type(loss).__name__}; choose from {names}")
    if getattr(loss, "miner", None) is not None:
        raise ValueError(f"{name} chooses the negatives: {type(loss).__name__} takes no miner")


def loss_of_each(loss: Any, z: Tensor, positive: Tensor, picks: Tensor) -> Tensor:
    """The loss of each row as an anchor, (N,), the N-pair loss with its penalty.

    Args:
        loss: one of ``CHOSEN_FOR``. z: (N, d). positive: a row for each, (N,).
        picks: the rows that are its negatives, (N, M).
    """
    of_rows = SEEN_BY[type(loss)](loss, z, positive, z[picks]).loss
    if isinstance(loss, NPairLoss) and loss.l2:
        of_rows = of_rows + loss.l2 / 2 * (z.square() + z[positive].square()).sum(1)
    return of_rows


def slopes_with_each(loss: Any, z: Tensor, along: Tensor, positive: Tensor) -> Tensor:
    """How fast the loss of each row with each row alone as its negative rises, (N, N).

    Of the N-pair loss without its penalty, which all negatives of an anchor share.

    Args:
        loss: one of ``CHOSEN_FOR``. z: (N, d), and how they move, along. positive: a row for each,
            (N,). Rows of the anchor's own class mean nothing as negatives.

    >>> z, positive = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), torch.tensor([1, 0, 0])
    >>> along = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    >>> slopes_with_each(TripletMarginLoss(margin=0.5), z, along, positive)[0]
    tensor([-2.,  0., -4.])
    """
    if isinstance(loss, TripletMarginLoss) and loss.normalize:
        z, along = unit_along(z, along)
    near, rise = z @ z.T, along @ z.T  # of triplets less the squared distance
    rise = rise + rise.T
    if isinstance(loss, TripletMarginLoss):
        square, grow = z.square().sum(1), 2 * (z * along).sum(1)
        near = 2 * near - square - square[:, None]
        rise = 2 * rise - grow - grow[:, None]
    excess, rise = (x - x.gather(1, positive[:, None]) for x in (near, rise))
    if isinstance(loss, NPairLoss):
        return excess.sigmoid() * rise
    return (excess + loss.margin > 0) * rise


def unit_along(z: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Rows at length 1, and how they move there as the rows move.

    >>> unit_along(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 5.0]]))
    (tensor([[0., 1.]]), tensor([[0.5000, 0.0000]]))
    """
    length = length_of(z)
    z = z / length
    return z, (along - (along * z).sum(1, keepdim=True) * z) / length


def how_many(loss: nn.Module, negatives: int | None, classes: int, candidates: int) -> int:
    """Negatives an anchor: as asked for, by default 1, or half of the other classes for N-pair."""
    if negatives is None:
        negatives = max(1, (classes - 1) // 2) if isinstance(loss, NPairLoss) else 1
    return min(negatives, candidates)
