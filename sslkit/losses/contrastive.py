"""The contrastive loss over pairs (Hadsell, Chopra and LeCun 2006)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_above, checked, distances
from sslkit.losses.pairwise import mean_over_pairs, mined
from sslkit.miners import Pairs
from sslkit.miners.chosen import name_of


def contrastive(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin: float = 1.0,
    pairs: Pairs | None = None,
) -> Tensor:
    """The contrastive loss (Hadsell et al., Dimensionality reduction by learning an invariant
    mapping, CVPR 2006).

    The mean over pairs of d^2 / 2 where both have one label, and max(0, margin - d)^2 / 2 where
    they have not; d is the Euclidean distance of the embeddings as they are given. It is computed
    in float32 (float64 for float64 input), under autocast too.

    Args:
        embeddings: (N, D); not normalised here.
        labels: integers, (N,): the loss is over all pairs of rows.
        margin: above 0; the distance at which rows of different labels no longer repel.
        pairs: instead of labels, the pairs to take.

    Returns:
        The loss, a scalar of at least 0; 0, with zero gradient, if there is no pair. An embedding
        that is not finite makes it NaN.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N integers,
            both labels and pairs or neither, or a margin not above 0.

    >>> z = torch.tensor([[0.0], [3.0], [3.5]])
    >>> contrastive(z, torch.tensor([7, 7, 3]), margin=1.0)  # (9 + 0.5^2 + 0) / 2 / 3
    tensor(1.5417)
    """
    check_above(0, margin=margin)
    (embeddings,) = checked(embeddings=embeddings)

    def term(distance: Tensor, same: Tensor) -> Tensor:
        return torch.where(same, distance, (margin - distance).relu()).square() / 2

    loss = mean_over_pairs(term, distances(embeddings), labels, pairs)
    return loss + 0 * embeddings.sum()  # an infinite distance would pass for a far negative


class ContrastiveLoss(nn.Module):
    """The contrastive loss over pairs as a module; see :func:`contrastive`.

    Args:
        margin: above 0.
        miner: from embeddings and labels to the pairs to take; None for all.
        gather: take the rows of all processes. The value and, averaged over processes as DDP
            does, the gradient are those of the whole batch in one process.

    >>> ContrastiveLoss(margin=1.0)(torch.eye(2), torch.tensor([0, 1]))
    tensor(0.)
    """

    def __init__(
        self,
        *,
        margin: float = 1.0,
        miner: Callable[[Tensor, Tensor], Pairs] | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        check_above(0, margin=margin)
        self.margin = margin
        self.miner = miner
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, D) and (N,) to a scalar."""
        if self.gather:
            embeddings, labels = all_gather(embeddings), all_gather(labels)
        pairs = mined(self.miner, Pairs, embeddings, labels)
        given = labels if pairs is None else None
        return contrastive(embeddings, given, margin=self.margin, pairs=pairs)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, miner={name_of(self.miner)}, gather={self.gather}"
