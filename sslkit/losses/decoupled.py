"""Decoupled contrastive learning (Yeh et al. 2022, arXiv:2110.06848)."""

import torch
from torch import Tensor, nn

from sslkit.distributed import sum_of_shares
from sslkit.embeddings import check_above, unit
from sslkit.losses.multi_view import pair_logits


def decoupled_nt_xent(
    z0: Tensor,
    z1: Tensor,
    *,
    temperature: float | Tensor,
    sigma: float | None = None,
    anchors: slice | None = None,
) -> Tensor:
    """NT-Xent without the positive in its denominator: DCL, and DCLW (Yeh et al. 2022).

    The mean over the 2N anchors of log(sum of exp(negative)) - w positive, with cosines over the
    temperature. So an easy positive no longer shrinks the gradient of its negatives, and small
    batches do better. w is 1, or with ``sigma`` 2 - exp(c / sigma) / mean of exp(c / sigma) for
    a positive pair of cosine c, which asks more of distant views; w has no gradient.

    Args:
        z0: projections of the first views, (N, D), normalised here.
        z1: projections of the second views, (N, D).
        temperature: above 0; the paper has 0.1 to 0.2. A tensor gets its gradient.
        sigma: above 0, the paper has 0.5; None for w = 1.
        anchors: as in :func:`nt_xent`.

    Returns:
        The loss, a scalar in nats; it may be below 0.

    Raises:
        ValueError: as :func:`nt_xent`; or a sigma that is not above 0.

    >>> z = torch.eye(4)
    >>> round(decoupled_nt_xent(z, z, temperature=0.5).item(), 4)  # log(6) - 2
    -0.2082
    """
    if sigma is not None:
        check_above(0, sigma=sigma)
    (negative,), positive, total = pair_logits((z0, z1), temperature, anchors)
    if sigma is not None:
        with torch.no_grad():
            cosine = (unit(z0.to(positive.dtype)) * unit(z1.to(positive.dtype))).sum(1)
            weight = 2 - len(cosine) * (cosine / sigma).softmax(0)
        positive = positive * (weight if anchors is None else weight[anchors])
    return (negative - positive).sum() / total


class DecoupledNTXentLoss(nn.Module):
    """Decoupled NT-Xent as a module; see :func:`decoupled_nt_xent`.

    Args:
        temperature: above 0.
        sigma: above 0, for weighted positives; None for weight 1.
        gather: take the negatives from all processes. The value and, averaged over processes as
            DDP does, the gradient are those of the whole batch in one process.

    >>> DecoupledNTXentLoss(temperature=0.1)(torch.eye(4), torch.eye(4)).item() < -8
    True
    """

    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        *,
        sigma: float | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        check_above(0, temperature=temperature)
        if sigma is not None:
            check_above(0, sigma=sigma)
        self.temperature = temperature
        self.sigma = sigma
        self.gather = gather

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:
        """(N, D) and (N, D) to a scalar."""
        return sum_of_shares(self._share, z0, z1) if self.gather else self._share(z0, z1)

    def _share(self, z0: Tensor, z1: Tensor, anchors: slice | None = None) -> Tensor:
        return decoupled_nt_xent(
            z0, z1, temperature=self.temperature, sigma=self.sigma, anchors=anchors
        )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, sigma={self.sigma}, gather={self.gather}"
