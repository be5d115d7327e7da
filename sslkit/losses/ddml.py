"""Discriminative deep metric learning (Hu, Lu and Tan 2014)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_above, checked, squared_distances
from sslkit.losses.pairwise import mean_over_pairs, mined
from sslkit.miners import Pairs
from sslkit.miners.chosen import name_of


def ddml(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    threshold: float = 3.0,
    sharpness: float = 10.0,
    pairs: Pairs | None = None,
) -> Tensor:
    """The loss of discriminative deep metric learning (Hu et al., Discriminative deep metric
    learning for face verification in the wild, CVPR 2014).

    Squared distances of one label shall be below threshold - 1, those of different labels above
    threshold + 1: the mean over pairs of log(1 + exp(sharpness * z)) / sharpness, with
    z = 1 - l * (threshold - d^2), l = 1 where both have one label and -1 where they have not; d is
    the Euclidean distance of the embeddings as they are given. The paper takes half the sum, not
    the mean, and adds the squared weights of the network: that is the optimiser's weight decay. It
    is computed in float32 (float64 for float64 input), under autocast too.

    Args:
        embeddings: (N, D); not normalised here.
        labels: integers, (N,): the loss is over all pairs of rows.
        threshold: the paper's tau, above 1, in units of squared distance.
        sharpness: the paper's beta, above 0; with a large one the loss is nearly max(0, z).
        pairs: instead of labels, the pairs to take.

    Returns:
        The loss, a scalar of at least 0; 0, with zero gradient, if there is no pair. An embedding
        that is not finite makes it NaN.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N integers,
            both labels and pairs or neither, a threshold not above 1, or a sharpness not above 0.

    >>> z = torch.tensor([[0.0], [1.0]])
    >>> labels = torch.tensor([7, 7])
    >>> ddml(z, labels, threshold=2.0, sharpness=1.0)  # log(1 + exp(1 - (2 - 1)))
    tensor(0.6931)
    """
    check_above(1, threshold=threshold)
    check_above(0, sharpness=sharpness)
    (embeddings,) = checked(embeddings=embeddings)

    def term(square: Tensor, same: Tensor) -> Tensor:
        excess = square - threshold
        return F.softplus(1 + torch.where(same, excess, -excess), beta=sharpness, threshold=40)

    loss = mean_over_pairs(term, squared_distances(embeddings), labels, pairs)
    return loss + 0 * embeddings.sum()  # an infinite distance would pass for a far negative


class DDMLLoss(nn.Module):
    """The loss of discriminative deep metric learning as a module; see :func:`ddml`.

    Args:
        threshold: above 1.
        sharpness: above 0.
        miner: from embeddings and labels to the pairs to take; None for all.
        gather: take the rows of all processes. The value and, averaged over processes as DDP
            does, the gradient are those of the whole batch in one process.

    >>> DDMLLoss(threshold=2.0)(torch.zeros(2, 1), torch.tensor([0, 0])).item() < 1e-3
    True
    """

    def __init__(
        self,
        *,
        threshold: float = 3.0,
        sharpness: float = 10.0,
        miner: Callable[[Tensor, Tensor], Pairs] | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        check_above(1, threshold=threshold)
        check_above(0, sharpness=sharpness)
        self.threshold = threshold
        self.sharpness = sharpness
        self.miner = miner
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, D) and (N,) to a scalar."""
        if self.gather:
            embeddings, labels = all_gather(embeddings), all_gather(labels)
        pairs = mined(self.miner, Pairs, embeddings, labels)
        return ddml(
            embeddings,
            labels if pairs is None else None,
            threshold=self.threshold,
            sharpness=self.sharpness,
            pairs=pairs,
        )

    def extra_repr(self) -> str:
        return (
            f"threshold={self.threshold}, sharpness={self.sharpness}, "
            f"miner={name_of(self.miner)}, gather={self.gather}"
        )
