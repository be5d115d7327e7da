"""NT-Xent, the loss of SimCLR (Chen et al. 2020, arXiv:2002.05709)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import all_gather


def nt_xent(z0: Tensor, z1: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views (Chen et al. 2020).

    Every projection is an anchor once: its positive is the other view of the same image, its
    negatives are both views of all other images. Similarity is the cosine over the temperature;
    the loss is the mean cross-entropy over the 2N anchors. It is computed in float32 (float64
    for float64 input), under autocast too.

    Args:
        z0: projections of the first views, (N, D); row i belongs to row i of ``z1``. They are
            normalised here.
        z1: projections of the second views, (N, D).
        temperature: above 0; 0.1 to 0.5 is usual. A tensor gets its gradient.

    Returns:
        The loss, a scalar in nats, at least 0.

    Raises:
        ValueError: shapes that differ or are not (N, D), integers, fewer than two pairs (there
            would be no negative), or a number not above 0 as temperature (a tensor's value is
            not read: that would wait for the device).

    >>> z = torch.eye(4)
    >>> round(nt_xent(z, z, temperature=0.5).item(), 4)  # log(1 + 6 exp(-2))
    0.5944
    """
    if z0.ndim != 2 or z0.shape != z1.shape:
        raise ValueError(
            "nt_xent takes two (N, D) tensors of one shape, not "
            f"{tuple(z0.shape)} and {tuple(z1.shape)}"
        )
    if not (z0.is_floating_point() and z1.is_floating_point()):
        raise ValueError(f"nt_xent takes floating-point tensors, not {z0.dtype} and {z1.dtype}")
    n = len(z0)
    if n < 2:
        raise ValueError(f"nt_xent needs at least 2 pairs to have a negative, not {n}")
    check_temperature(temperature)
    dtype = torch.promote_types(torch.promote_types(z0.dtype, z1.dtype), torch.float32)
    with torch.autocast(z0.device.type, enabled=False):
        z = F.normalize(torch.cat([z0, z1]).to(dtype), dim=1)  # (2N, D)
        logits = z @ z.T / temperature  # (2N, 2N)
        itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)
        positive = torch.arange(2 * n, device=z.device).roll(n)
        return F.cross_entropy(logits.masked_fill(itself, -math.inf), positive)


def check_temperature(temperature: float | Tensor) -> None:
    """Raise ValueError unless a temperature given as a number is finite and above 0."""
    if not isinstance(temperature, Tensor) and not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be a finite number above 0, not {temperature}")


class NTXentLoss(nn.Module):
    """NT-Xent as a module; see :func:`nt_xent`.

    Args:
        temperature: above 0.
        gather: take the negatives from all processes of ``torch.distributed``. With gradients
            averaged over processes, as DDP does, the gradient is that of the whole batch in
            one process. Without an initialised group it changes nothing.

    >>> NTXentLoss(temperature=0.1)(torch.eye(4), torch.eye(4)).item() < 1e-3
    True
    """

    def __init__(self, temperature: float = 0.5, *, gather: bool = True) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
        self.gather = gather

    def forward(self, z0: Tensor, z1: Tensor) -> Tensor:
        """(N, D) and (N, D) to a scalar."""
        if self.gather:
            z0, z1 = all_gather(z0), all_gather(z1)
        return nt_xent(z0, z1, temperature=self.temperature)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather={self.gather}"
