"""The angular loss, alone and with the N-pair loss (Wang et al. 2017, arXiv:1708.01682)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import all_gather
from sslkit.embeddings import (
    check_above,
    check_at_least,
    check_labels,
    checked,
    full_precision,
    unit,
)
from sslkit.losses.n_pair import n_pair
from sslkit.miners.pairs import pair_masks


def angular(embeddings: Tensor, labels: Tensor, *, alpha: float = 45.0) -> Tensor:
    """The angular loss (Wang et al. 2017).

    It bounds the angle at the negative of each triplet by alpha. With the embeddings at length 1,
    and t = tan(alpha)^2, the mean over ordered pairs (a, p) of one label of
    log(1 + sum over rows n of other labels of exp(4 t (a + p) . n - 2 (1 + t) a . p)). In batches
    of two rows a class this is the paper's, which has one pair a class. It is computed in float32
    (float64 for float64 input), under autocast too, in memory O(N^2).

    Args:
        embeddings: (N, D), normalised here.
        labels: integers, (N,).
        alpha: degrees, above 0, at most 60; 45 is usual.

    Returns:
        The loss, a scalar in nats, at least 0; 0, with zero gradient, if no two rows have one
        label or all have. An embedding that is not finite makes it NaN.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N integers,
            or an alpha that is not above 0 and at most 60.

    >>> labels = torch.tensor([7, 7, 3])
    >>> z = torch.eye(2)[[0, 0, 1]]
    >>> angular(z, labels, alpha=45.0)  # log(1 + exp(0 - 4))
    tensor(0.0181)
    """
    check_alpha(alpha)
    (embeddings,) = checked(embeddings=embeddings)
    check_labels(labels, len(embeddings))
    positive, negative = pair_masks(labels)
    valid = positive & negative.any(1)
    t = math.tan(math.radians(alpha)) ** 2
    z = unit(embeddings)
    with full_precision(z):
        cosine = z @ z.T
        # Rows of one label share their negatives, so that the sum over n is a matrix product. Up
        # to 60 degrees its terms are at least exp(-16 t) = exp(-48), which float32 can hold.
        term = (4 * t * (cosine - 1)).masked_fill(~negative, -math.inf).exp()
        total = term @ term.T  # (N, N)
    logit = total.masked_fill(~valid, 1).log() + 8 * t - 2 * (1 + t) * cosine
    terms = torch.where(valid, F.softplus(logit, threshold=40), 0)
    return terms.sum() / valid.sum().clamp_min(1) + 0 * embeddings.sum()  # NaN outside of pairs


def n_pair_angular(
    embeddings: Tensor,
    labels: Tensor,
    *,
    alpha: float = 45.0,
    weight: float = 2.0,
    l2: float = 0.0,
) -> Tensor:
    """The N-pair loss plus the weighted angular loss (Wang et al. 2017).

    Args:
        embeddings: (N, D); normalised for the angular part alone.
        labels: integers, (N,).
        alpha: degrees, above 0, at most 60.
        weight: of the angular loss, above 0; the paper has 2.
        l2: as in :func:`sslkit.losses.n_pair`.

    Returns:
        The loss, a scalar in nats, at least 0; NaN if an embedding is not finite.

    Raises:
        ValueError: as :func:`angular` and :func:`sslkit.losses.n_pair`, and for a weight not
            above 0.

    >>> labels = torch.tensor([7, 7, 3, 3])
    >>> n_pair_angular(torch.eye(2)[[0, 0, 1, 1]], labels)  # log(1 + 1 / e) + 2 log(1 + 2 / e^4)
    tensor(0.3852)
    """
    check_above(0, weight=weight)
    return n_pair(embeddings, labels, l2=l2) + weight * angular(embeddings, labels, alpha=alpha)


def check_alpha(alpha: float) -> None:
    """Raise ValueError unless alpha is above 0 and at most 60."""
    if not 0 < alpha <= 60:
        raise ValueError(f"alpha must be above 0 and at most 60 degrees, not {alpha}")


class AngularLoss(nn.Module):
    """The angular loss as a module; see :func:`angular`.

    Args:
        alpha: degrees, above 0, at most 60.
        gather: take the rows of all processes. The value and, averaged over processes as DDP
            does, the gradient are those of the whole batch in one process.

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> round(AngularLoss()(torch.eye(2)[labels], labels).item(), 4)  # log(1 + 2 exp(-4))
    0.036
    """

    def __init__(self, *, alpha: float = 45.0, gather: bool = True) -> None:
        super().__init__()
        check_alpha(alpha)
        self.alpha = alpha
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, D) and (N,) to a scalar."""
        if self.gather:
            embeddings, labels = all_gather(embeddings), all_gather(labels)
        return angular(embeddings, labels, alpha=self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gather={self.gather}"


class NPairAngularLoss(nn.Module):
    """The N-pair loss plus the weighted angular loss as a module; see :func:`n_pair_angular`.

    Args:
        alpha: degrees, above 0, at most 60.
        weight: above 0.
        l2: at least 0.
        gather: as in :class:`AngularLoss`.

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> round(NPairAngularLoss()(torch.eye(2)[labels], labels).item(), 4)
    0.3852
    """

    def __init__(
        self, *, alpha: float = 45.0, weight: float = 2.0, l2: float = 0.0, gather: bool = True
    ) -> None:
        super().__init__()
        check_alpha(alpha)
        check_above(0, weight=weight)
        check_at_least(0, l2=l2)
        self.alpha = alpha
        self.weight = weight
        self.l2 = l2
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, D) and (N,) to a scalar."""
        if self.gather:
            embeddings, labels = all_gather(embeddings), all_gather(labels)
        return n_pair_angular(embeddings, labels, alpha=self.alpha, weight=self.weight, l2=self.l2)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, weight={self.weight}, l2={self.l2}, gather={self.gather}"
