"""The margin loss of SimCLR's comparison (Chen et al. 2020, arXiv:2002.05709, table 2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_above, checked, full_precision, unit


def margin_triplet(z0: Tensor, z1: Tensor, *, margin: float, semi_hard: bool = False) -> Tensor:
    """Triplet loss on cosines between two views (Chen et al. 2020, table 2).

    Every projection is an anchor once: its positive is the other view of the same image, its
    2N - 2 negatives are both views of all other images. An anchor's loss is the mean over its
    negatives of max(0, s_neg - s_pos + margin), with s the cosine; or, semi-hard (Schroff et
    al. 2015, arXiv:1503.03832), that of the most similar negative among those less similar than
    the positive, 0 if there is none. The result is the mean over the 2N anchors. It is computed
    in float32 (float64 for float64 input), under autocast too.

    The paper's table has one negative; that several are averaged is this library's choice.

    Args:
        z0: projections of the first views, (N, D); row i belongs to row i of ``z1``. They are
            normalised here; a zero row has cosine 0 with every other.
        z1: projections of the second views, (N, D).
        margin: above 0, by how much the positive is to be more similar; cosines differ by at
            most 2.
        semi_hard: take one negative an anchor.

    Returns:
        The loss, a scalar in [0, 2 + margin]; in [0, margin] if semi-hard.

    Raises:
        ValueError: shapes that differ or are not (N, D), integers, fewer than two pairs (there
            would be no negative), or a margin not above 0.

    >>> z = torch.eye(4)
    >>> margin_triplet(z, z, margin=1.5).item()  # 0 - 1 + 1.5
    0.5
    """
    check_above(0, margin=margin)
    similarity, positive, negatives = similarities(z0, z1)
    if semi_hard:
        return F.relu(
            semi_hard_negative(similarity, positive, negatives) - positive + margin
        ).mean()
    terms = F.relu(similarity - positive[:, None] + margin)
    return mean_over_negatives(terms, negatives).mean()


def similarities(z0: Tensor, z1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cosines of all views, (2N, 2N); of the positives, (2N,); which are of negatives."""
    z0, z1 = checked(z0=z0, z1=z1)
    n = len(z0)
    if n < 2:
        raise ValueError(f"z0 must have at least 2 rows, for a negative, not {n}")
    z = unit(torch.cat([z0, z1]))  # (2N, D)
    with full_precision(z):
        similarity = z @ z.T
    positive = torch.cat([similarity.diagonal(n), similarity.diagonal(-n)])
    same_image = torch.eye(n, dtype=torch.bool, device=z.device).repeat(2, 2)
    return similarity, positive, ~same_image


def mean_over_negatives(terms: Tensor, negatives: Tensor) -> Tensor:
    """The mean of the negatives' terms, (2N, 2N), for each anchor, (2N,)."""
    return terms.masked_fill(~negatives, 0).sum(1) / (len(terms) - 2)


def semi_hard_negative(similarity: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """Each anchor's largest cosine of a negative below that of its positive, or -inf, (2N,)."""
    below = negatives & (similarity < positive[:, None])
    return similarity.masked_fill(~below, -math.inf).amax(1)


class MarginTripletLoss(nn.Module):
    """The margin loss as a module; see :func:`margin_triplet`.

    Args:
        margin: above 0.
        semi_hard: take one negative an anchor.
        gather: take the negatives from all processes of ``torch.distributed``. Every process
            computes the loss of the whole batch; with gradients averaged over processes, as
            DDP does, the gradient is that of one process holding it. Without an initialised
            group it changes nothing.

    >>> MarginTripletLoss(margin=0.5)(torch.eye(4), torch.eye(4)).item()
    0.0
    """

    def __init__(self, *, margin: float, semi_hard: bool = False, gather: bool = True) -> None:
        super().__init__()
        check_above(0, margin=margin)
        self.margin = margin
        self.semi_hard = semi_hard
        self.gather = gather

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:
        """(N, D) and (N, D) to a scalar."""
        if self.gather:
            z0, z1 = all_gather(z0), all_gather(z1)
        return margin_triplet(z0, z1, margin=self.margin, semi_hard=self.semi_hard)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, semi_hard={self.semi_hard}, gather={self.gather}"
