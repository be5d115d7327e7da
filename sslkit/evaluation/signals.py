"""What features alone say of a representation while it is trained: no labels needed.

Each raises ValueError unless its features are (N, D) with N of at least 2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_std(features: Tensor) -> float:
    """Mean deviation of normalised features times sqrt(D): 1 when spread evenly, 0 at collapse.

    (N, D), N at least 2, to a float (Chen and He 2021, SimSiam, figure 2).

    >>> feature_std(torch.ones(8, 4))
    0.0
    """
    _check(features)
    return (F.normalize(features).std(0).mean() * features.shape[1] ** 0.5).item()


def rankme(features: Tensor) -> float:
    """Effective rank: the exponential of the entropy of the singular values, 1 to min(N, D).

    (N, D) to a float (Garrido et al. 2023, arXiv:2210.02885).

    >>> round(rankme(torch.eye(4)), 3)
    4.0
    """
    _check(features)
    values = torch.linalg.svdvals(features.double())
    p = values / values.sum().clamp(min=1e-12) + 1e-7
    return (-(p * p.log()).sum()).exp().item()


def alignment(features0: Tensor, features1: Tensor) -> float:
    """Mean squared distance of the normalised features of two views, 0 to 4; lower is closer.

    (N, D) and (N, D), rows in the same order, to a float (Wang and Isola 2020, arXiv:2005.10242).

    >>> alignment(torch.eye(2), -torch.eye(2))
    4.0
    """
    _check(features0)
    if features0.shape != features1.shape:
        shapes = f"{tuple(features0.shape)} and {tuple(features1.shape)}"
        raise ValueError(f"alignment takes two tensors of one shape, not {shapes}")
    return (F.normalize(features0) - F.normalize(features1)).square().sum(1).mean().item()


def uniformity(features: Tensor) -> float:
    """Log of the mean Gaussian potential of all pairs, -8 to 0; lower is more uniform.

    (N, D) to a float (Wang and Isola 2020, t = 2).

    >>> uniformity(torch.ones(3, 2))
    0.0
    """
    _check(features)
    return torch.pdist(F.normalize(features)).square().mul(-2).exp().mean().log().item()


def _check(features: Tensor) -> None:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(
            f"features must be (N, D) with N of at least 2, not {tuple(features.shape)}"
        )
