"""Redundancy reduction, the loss of Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230)."""

import torch
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import check_at_least, checked, full_precision


def barlow_twins(z0: Tensor, z1: Tensor, *, redundancy: float = 5e-3) -> Tensor:
    """Distance of the views' cross-correlation from the identity (Zbontar et al. 2021).

    Each dimension of each view is standardised over the batch, (z - mean) / sqrt(variance +
    1e-5) with the biased variance, as the authors' BatchNorm does; c, (D, D), is the mean over
    the N images of the products of the standardised dimensions of the two views. The loss is
    the sum over i of (c_ii - 1)^2, plus ``redundancy`` times the sum over i != j of c_ij^2. It
    is computed in float32 (float64 for float64 input), under autocast too.

    Args:
        z0: projections of the first views, (N, D); row i belongs to row i of ``z1``.
        z1: projections of the second views, (N, D).
        redundancy: weight of the terms off the diagonal, at least 0; the paper's lambda, 5e-3
            there and 5.1e-3 in the authors' code.

    Returns:
        The loss, a scalar, at least 0; about D for unrelated views or constant dimensions.

    Raises:
        ValueError: shapes that differ or are not (N, D), integers, fewer than two rows, or a
            redundancy below 0.

    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(barlow_twins(z, -z).item(), 3)  # c is -1 on the diagonal: 2 (-1 - 1)^2
    8.0
    """
    z0, z1 = checked(z0=z0, z1=z1)
    if len(z0) < 2:
        raise ValueError(f"z0 must have at least 2 rows, for a correlation, not {len(z0)}")
    check_at_least(0, redundancy=redundancy)
    with full_precision(z0):
        c = standardised(z0).T @ standardised(z1) / len(z0)  # (D, D)
        return (c.diagonal() - 1).square().sum() + redundancy * off_diagonal_squares(c)


def standardised(z: Tensor) -> Tensor:
    """Columns of (N, D) at mean 0 and variance 1, or 0 for a constant one.

    A column whose variance is not finite becomes NaN.
    """
    variance, mean = torch.var_mean(z, dim=0, correction=0)
    return (z - mean) / (variance + 1e-5 + (variance - variance)).sqrt()


def off_diagonal_squares(matrix: Tensor) -> Tensor:
    """The sum of the squares off the diagonal of (D, D).

    >>> off_diagonal_squares(torch.tensor([[5.0, 1.0], [2.0, 5.0]]))
    tensor(5.)
    """
    return (matrix - matrix.diagonal().diag()).square().sum()


class BarlowTwinsLoss(nn.Module):
    """The loss of Barlow Twins as a module; see :func:`barlow_twins`.

    Args:
        redundancy: weight of the terms off the diagonal, at least 0.
        gather: correlate over the images of all processes of ``torch.distributed``. Every
            process computes the loss of the whole batch; with gradients averaged over
            processes, as DDP does, the gradient is that of one process holding it. Without an
            initialised group it changes nothing.

    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> BarlowTwinsLoss()(z, z).item() < 1e-6
    True
    """

    def __init__(self, *, redundancy: float = 5e-3, gather: bool = True) -> None:
        super().__init__()
        check_at_least(0, redundancy=redundancy)
        self.redundancy = redundancy
        self.gather = gather

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:
        """(N, D) and (N, D) to a scalar."""
        if self.gather:
            z0, z1 = all_gather(z0), all_gather(z1)
        return barlow_twins(z0, z1, redundancy=self.redundancy)

    def extra_repr(self) -> str:
        return f"redundancy={self.redundancy}, gather={self.gather}"
