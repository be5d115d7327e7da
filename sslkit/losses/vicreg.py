"""Variance, invariance and covariance: VICReg (Bardes et al. 2022, arXiv:2105.04906)."""

import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_at_least, checked, full_precision
from sslkit.losses.barlow_twins import off_diagonal_squares


def vicreg(
    z0: Tensor,
    z1: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Tensor:
    """Variance-invariance-covariance regularisation of two views (Bardes et al. 2022).

    The weighted sum of three terms. Invariance: the mean squared difference of the views, over
    rows and dimensions. Variance: the mean over dimensions of max(0, 1 - sqrt(var + 1e-4)),
    averaged over the two views. Covariance: the sum of the squared covariances of different
    dimensions, over D, summed over the two views. Variances and covariances are unbiased, over
    N - 1. It is computed in float32 (float64 for float64 input), under autocast too.

    This is what the authors' code computes and the default weights belong to. The paper's
    formula differs: its invariance sums over the D dimensions, its variance adds the two views.

    Args:
        z0: projections of the first views, (N, D), not normalised; row i belongs to row i of
            ``z1``.
        z1: projections of the second views, (N, D).
        invariance: weight of the first term, at least 0.
        variance: weight of the second, at least 0.
        covariance: weight of the third, at least 0.

    Returns:
        The loss, a scalar, at least 0.

    Raises:
        ValueError: shapes that differ or are not (N, D), integers, fewer than two rows, or a
            weight below 0.

    >>> import torch
    >>> z = torch.zeros(4, 2)
    >>> round(vicreg(z, z).item(), 4)  # collapsed: 25 (1 - sqrt(1e-4))
    24.75
    """
    z0, z1 = checked(z0=z0, z1=z1)
    if len(z0) < 2:
        raise ValueError(f"z0 must have at least 2 rows, for a variance, not {len(z0)}")
    check_at_least(0, invariance=invariance, variance=variance, covariance=covariance)
    return (
        invariance * F.mse_loss(z0, z1)
        + variance * (_variance(z0) + _variance(z1)) / 2
        + covariance * (_covariance(z0) + _covariance(z1))
    )


def _variance(z: Tensor) -> Tensor:
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def _covariance(z: Tensor) -> Tensor:
    n, d = z.shape
    z = z - z.mean(dim=0)
    with full_precision(z):
        return off_diagonal_squares(z.T @ z / (n - 1)) / d


class VICRegLoss(nn.Module):
    """VICReg as a module; see :func:`vicreg`.

    Args:
        invariance: weight of the mean squared difference, at least 0.
        variance: weight of the hinge on the standard deviations, at least 0.
        covariance: weight of the squared covariances, at least 0.
        gather: take variances and covariances over the images of all processes of
            ``torch.distributed``. Every process computes the loss of the whole batch; with
            gradients averaged over processes, as DDP does, the gradient is that of one process
            holding it. Without an initialised group it changes nothing.

    >>> import torch
    >>> VICRegLoss(invariance=0.0, covariance=0.0)(4 * torch.eye(4), 4 * torch.eye(4)).item()
    0.0
    """

    def __init__(
        self,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        gather: bool = True,
    ) -> None:
        super().__init__()
        check_at_least(0, invariance=invariance, variance=variance, covariance=covariance)
        self.invariance = invariance
        self.variance = variance
        self.covariance = covariance
        self.gather = gather

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:
        """(N, D) and (N, D) to a scalar."""
        if self.gather:
            z0, z1 = all_gather(z0), all_gather(z1)
        return vicreg(
            z0,
            z1,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
        )

    def extra_repr(self) -> str:
        return (
            f"invariance={self.invariance}, variance={self.variance}, "
            f"covariance={self.covariance}, gather={self.gather}"
        )
