"""Contrast with hard negatives (Robinson et al. 2021, arXiv:2010.04592)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import sum_of_shares
from sslkit.embeddings import check_above, check_at_least, check_temperature
from sslkit.losses.multi_view import pair_logits


def hard_nt_xent(
    z0: Tensor,
    z1: Tensor,
    *,
    temperature: float | Tensor,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    anchors: slice | None = None,
) -> Tensor:
    """NT-Xent whose negatives are reweighted by hardness and debiased (Robinson et al. 2021).

    With s the cosine over the temperature T, each anchor's loss is -log(exp(s+) / (exp(s+) + G)).
    For M = 2N - 2 negatives, h is the mean of exp(s) over them weighted by exp(beta s): the
    closer, the heavier. A share ``tau_plus`` of them is taken to be of the anchor's own class
    and is subtracted: G = M max((h - tau_plus exp(s+)) / (1 - tau_plus), exp(-1 / T)).
    beta = 0 gives the debiased loss of Chuang et al. 2020 (arXiv:2007.00224) with one positive;
    beta = 0 and tau_plus = 0 NT-Xent.

    Args:
        z0: projections of the first views, (N, D), normalised here.
        z1: projections of the second views, (N, D).
        temperature: above 0; the paper has 0.5. A tensor gets its gradient.
        beta: concentration on hard negatives, at least 0; the paper has 0.5 to 2.
        tau_plus: the probability that a negative is of the anchor's class, in [0, 1); the paper
            has 0.1 on CIFAR-10, 0.01 to 0.1 elsewhere.
        anchors: as in :func:`nt_xent`.

    Returns:
        The loss, a scalar in nats, at least 0. Where tau_plus exp(s+) is nearly h, their
        difference loses digits: at T = 0.05 the gradient is exact to about 5e-5 in float32.

    Raises:
        ValueError: as :func:`nt_xent`; or a beta or tau_plus out of range.

    >>> z = torch.eye(4)
    >>> round(hard_nt_xent(z, z, temperature=0.5, beta=0.0, tau_plus=0.0).item(), 4)
    0.5944
    """
    _check(beta, tau_plus)
    scales = (1 + beta, beta) if beta else (1.0,)
    weighted, positive, total = pair_logits((z0, z1), temperature, anchors, scales=scales)
    count = math.log(2 * len(z0) - 2)
    h = weighted[0] - (weighted[1] if beta else count)
    if tau_plus:
        # log(exp(h) - tau_plus exp(positive)); where that is not positive, the floor stands.
        excess = positive - h + math.log(tau_plus)
        own = torch.log1p(-excess.clamp(max=-1e-6).exp()).masked_fill(excess >= 0, -math.inf)
        floor = -1 / check_temperature(temperature, h)
        h = (h + own - math.log1p(-tau_plus)).clamp_min(floor)
    return F.softplus(count + h - positive).sum() / total


def _check(beta: float, tau_plus: float) -> None:
    check_at_least(0, beta=beta)
    if not 0 <= tau_plus < 1:
        raise ValueError(f"tau_plus must be in [0, 1), not {tau_plus}")


class HardNTXentLoss(nn.Module):
    """NT-Xent with hard negatives as a module; see :func:`hard_nt_xent`.

    Args:
        temperature: above 0.
        beta: concentration on hard negatives, at least 0.
        tau_plus: the probability that a negative is of the anchor's class, in [0, 1).
        gather: take the negatives from all processes. The value and, averaged over processes as
            DDP does, the gradient are those of the whole batch in one process.

    >>> HardNTXentLoss(temperature=0.1)(torch.eye(4), torch.eye(4)).item() < 1e-3
    True
    """

    def __init__(
        self,
        temperature: float | Tensor = 0.5,
        *,
        beta: float = 1.0,
        tau_plus: float = 0.1,
        gather: bool = True,
    ) -> None:
        super().__init__()
        check_above(0, temperature=temperature)
        _check(beta, tau_plus)
        self.temperature = temperature
        self.beta = beta
        self.tau_plus = tau_plus
        self.gather = gather

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:
        """(N, D) and (N, D) to a scalar."""
        return sum_of_shares(self._share, z0, z1) if self.gather else self._share(z0, z1)

    def _share(self, z0: Tensor, z1: Tensor, anchors: slice | None = None) -> Tensor:
        return hard_nt_xent(
            z0,
            z1,
            temperature=self.temperature,
            beta=self.beta,
            tau_plus=self.tau_plus,
            anchors=anchors,
        )

    def extra_repr(self) -> str:
        return (
            f"temperature={self.temperature}, beta={self.beta}, tau_plus={self.tau_plus}, "
            f"gather={self.gather}"
        )
