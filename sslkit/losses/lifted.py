"""The lifted structured loss (Oh Song et al. 2016, arXiv:1511.06452)."""

import torch
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_above, check_labels, checked, distances
from sslkit.miners.pairs import pair_masks


def lifted_structure(embeddings: Tensor, labels: Tensor, *, margin: float = 1.0) -> Tensor:
    """The lifted structured loss (Oh Song et al. 2016).

    A pair (i, j) of one label stands against all negatives of both:
    J = d(i, j) + log(sum over negatives k of i of exp(margin - d(i, k))
    + sum over negatives l of j of exp(margin - d(j, l))), and the loss is half the mean over such
    pairs of max(0, J)^2; d is the Euclidean distance of the embeddings as they are given. It is
    computed in float32 (float64 for float64 input), under autocast too, in memory O(N^2).

    Args:
        embeddings: (N, D); not normalised here.
        labels: integers, (N,).
        margin: above 0, in units of distance.

    Returns:
        The loss, a scalar of at least 0; 0, with zero gradient, if no two rows have one label or
        all have. An embedding that is not finite makes it NaN.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N integers,
            or a margin not above 0.

    >>> z = torch.tensor([[0.0], [2.0], [3.0]])
    >>> labels = torch.tensor([7, 7, 3])
    >>> lifted_structure(z, labels, margin=1.0)  # (2 + log(exp(1 - 3) + exp(1 - 1)))^2 / 2
    tensor(2.2619)
    """
    check_above(0, margin=margin)
    (embeddings,) = checked(embeddings=embeddings)
    check_labels(labels, len(embeddings))
    positive, negative = pair_masks(labels)
    distance = distances(embeddings)
    least = torch.finfo(distance.dtype).min  # not -inf, whose logaddexp has a NaN gradient
    repulsion = (margin - distance).masked_fill(~negative, least).logsumexp(1)  # (N,)
    violation = (distance + torch.logaddexp(repulsion[:, None], repulsion)).relu()
    terms = violation.masked_fill(~positive, 0).square()
    loss = terms.sum() / (2 * positive.sum()).clamp_min(1)
    return loss + 0 * embeddings.sum()  # an infinite distance would pass for a far negative


class LiftedStructureLoss(nn.Module):
    """The lifted structured loss as a module; see :func:`lifted_structure`.

    Args:
        margin: above 0.
        gather: take the rows of all processes. The value and, averaged over processes as DDP
            does, the gradient are those of the whole batch in one process.

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> LiftedStructureLoss(margin=1.0)(9 * torch.eye(2)[labels], labels)
    tensor(0.)
    """

    def __init__(self, *, margin: float = 1.0, gather: bool = True) -> None:
        super().__init__()
        check_above(0, margin=margin)
        self.margin = margin
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, D) and (N,) to a scalar."""
        if self.gather:
            embeddings, labels = all_gather(embeddings), all_gather(labels)
        return lifted_structure(embeddings, labels, margin=self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, gather={self.gather}"
