"""Supervised contrastive loss (Khosla et al. 2020, arXiv:2004.11362)."""

import torch
from torch import Tensor, nn

from sslkit.distributed import sum_of_shares
from sslkit.embeddings import check_above, check_labels, check_temperature, checked, unit
from sslkit.losses.multi_view import are_all
from sslkit.losses.streaming import log_sum_exp, log_sum_exp_self


def sup_con(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    anchors: slice | None = None,
) -> Tensor:
    """The supervised contrastive loss, L_out of Khosla et al. 2020.

    Each row is an anchor; its positives are the other rows of its label. The mean, over anchors
    that have a positive, of log(sum over all other rows of exp(s)) - mean over positives of s,
    where s is the cosine over the temperature. (The paper's code multiplies by temperature over
    a base temperature besides.) For several views concatenate them, and repeat the labels.

    Args:
        embeddings: (N, D), normalised here.
        labels: integers, (N,).
        temperature: above 0; the paper has 0.1. A tensor gets its gradient.
        anchors: the rows that are anchors; all. With some, the result is their share of the
            loss: the shares of all rows add up to it.

    Returns:
        The loss, a scalar in nats, at least 0; 0, with zero gradient, if no row has a positive.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N
            integers, fewer than two rows, or a number not above 0 as temperature.

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> z = torch.eye(2)[labels]
    >>> round(sup_con(z, labels, temperature=0.5).item(), 4)  # log(1 + 2 exp(-2))
    0.2395
    """
    (embeddings,) = checked(embeddings=embeddings)
    n = len(embeddings)
    if n < 2:
        raise ValueError(f"embeddings must have at least 2 rows, not {n}")
    check_labels(labels, n)
    labels = labels.long()
    temperature = check_temperature(temperature, embeddings)
    z = unit(embeddings)
    own = slice(None) if anchors is None else anchors
    if are_all(anchors, n):
        every = log_sum_exp_self(z, temperature=temperature, period=n)
    else:
        itself = torch.arange(n, device=z.device)[own, None]
        every = log_sum_exp(z[own], z, temperature=temperature, excluded=itself)
    group = _groups(labels)
    others = torch.zeros_like(labels).index_add(0, group, torch.ones_like(labels))[group] - 1
    total = torch.zeros_like(z).index_add(0, group, z)  # of each label, (labels, D)
    positive = (z[own] * (total[group[own]] - z[own])).sum(1) / others[own].clamp_min(1)
    valid = others > 0
    terms = (every - positive / temperature) * valid[own]
    return terms.sum() / valid.sum().clamp_min(1)


def _groups(labels: Tensor) -> Tensor:
    """Labels as 0, 1, 2, ...; ``torch.unique`` would wait for the device."""
    ordered, order = labels.sort()
    step = torch.zeros_like(labels)
    step[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(labels).scatter(0, order, step.cumsum(0))


class SupConLoss(nn.Module):
    """The supervised contrastive loss as a module; see :func:`sup_con`.

    Args:
        temperature: above 0.
        gather: contrast with the rows of all processes. The value and, averaged over processes
            as DDP does, the gradient are those of the whole batch in one process.

    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> SupConLoss(temperature=0.1)(torch.eye(2)[labels], labels).item() < 1e-3
    True
    """

    def __init__(self, temperature: float | Tensor = 0.1, *, gather: bool = True) -> None:
        super().__init__()
        check_above(0, temperature=temperature)
        self.temperature = temperature
        self.gather = gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, D) and (N,) to a scalar."""
        if self.gather:
            return sum_of_shares(self._share, embeddings, labels)
        return self._share(embeddings, labels)

    def _share(self, embeddings: Tensor, labels: Tensor, anchors: slice | None = None) -> Tensor:
        return sup_con(embeddings, labels, temperature=self.temperature, anchors=anchors)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather={self.gather}"
