"""NT-Logistic, of SimCLR's comparison (Chen et al. 2020, arXiv:2002.05709, table 2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_above, check_temperature
from sslkit.losses.margin_triplet import mean_over_negatives, semi_hard_negative, similarities


def nt_logistic(
    z0: Tensor, z1: Tensor, *, temperature: float | Tensor, semi_hard: bool = False
) -> Tensor:
    """Logistic loss on the pairs of two views (Chen et al. 2020, table 2).

    Every projection is an anchor once: its positive is the other view of the same image, its
    2N - 2 negatives are both views of all other images. With s the cosine and T the
    temperature, an anchor's loss is -log sigmoid(s_pos / T) minus the mean over its negatives of
    log sigmoid(-s_neg / T); or, semi-hard (Schroff et al. 2015, arXiv:1503.03832), minus that of
    the most similar negative among those less similar than the positive, if there is one. The
    result is the mean over the 2N anchors. It is computed in float32 (float64 for float64
    input), under autocast too.

    The paper's table has one negative; that several are averaged is this library's choice.

    Args:
        z0: projections of the first views, (N, D); row i belongs to row i of ``z1``. They are
            normalised here; a zero row has cosine 0 with every other.
        z1: projections of the second views, (N, D).
        temperature: above 0. A tensor gets its gradient.
        semi_hard: take one negative an anchor.

    Returns:
        The loss, a scalar in nats, at least 0.

    Raises:
        ValueError: shapes that differ or are not (N, D), integers, fewer than two pairs (there
            would be no negative), or a temperature not above 0.

    >>> import torch
    >>> z = torch.eye(4)
    >>> round(nt_logistic(z, z, temperature=0.5).item(), 4)  # log(1 + exp(-2)) + log(2)
    0.8201
    """
    similarity, positive, negatives = similarities(z0, z1)
    temperature = check_temperature(temperature, similarity)
    attraction = F.softplus(-positive / temperature)
    if semi_hard:
        nearest = semi_hard_negative(similarity, positive, negatives)
        none = nearest.isneginf()
        # Filled twice: the temperature's gradient would be NaN at -inf.
        repulsion = F.softplus(nearest.masked_fill(none, 0) / temperature).masked_fill(none, 0)
    else:
        repulsion = mean_over_negatives(F.softplus(similarity / temperature), negatives)
    return (attraction + repulsion).mean()


class NTLogisticLoss(nn.Module):
    """NT-Logistic as a module; see :func:`nt_logistic`.

    Args:
        temperature: above 0.
        semi_hard: take one negative an anchor.
        gather: take the negatives from all processes of ``torch.distributed``. Every process
            computes the loss of the whole batch; with gradients averaged over processes, as
            DDP does, the gradient is that of one process holding it. Without an initialised
            group it changes nothing.

    >>> import torch
    >>> NTLogisticLoss(temperature=0.1, semi_hard=True)(torch.eye(4), torch.eye(4)).item() < 0.7
    True
    """

    def __init__(
        self, temperature: float | Tensor = 0.5, *, semi_hard: bool = False, gather: bool = True
    ) -> None:
        super().__init__()
        check_above(0, temperature=temperature)
        self.temperature = temperature
        self.semi_hard = semi_hard
        self.gather = gather

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:
        """(N, D) and (N, D) to a scalar."""
        if self.gather:
            z0, z1 = all_gather(z0), all_gather(z1)
        return nt_logistic(z0, z1, temperature=self.temperature, semi_hard=self.semi_hard)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, semi_hard={self.semi_hard}, gather={self.gather}"
