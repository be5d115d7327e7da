"""NT-Xent, the loss of SimCLR (Chen et al. 2020, arXiv:2002.05709), of two or more views."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import sum_of_shares
from sslkit.embeddings import check_above, full_precision, length_of
from sslkit.losses.multi_view import are_all, checked_views, nt_xent_multi_view
from sslkit.losses.streaming.definition import LOG2_E, gradients, is_flat
from sslkit.losses.streaming.tiles import self_gradient, self_sums, space_for

WHOLE = 256  # up to so many rows the whole matrix is faster than its tiles


def nt_xent(
    z0: Tensor, z1: Tensor, *, temperature: float | Tensor, anchors: slice | None = None
) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views (Chen et al. 2020).

    Every projection is an anchor once: its positive is the other view of the same image, its
    negatives are both views of all other images. Similarity is the cosine over the temperature;
    the loss is the mean cross-entropy over the 2N anchors. It is computed in float32 (float64
    for float64 input), under autocast too. From 256 rows on, both views counted, it never holds
    the (2N, 2N) matrix, unless it is differentiated twice. ``torch.func`` cannot transform it:
    that needs :func:`nt_xent_multi_view` of few rows.

    Args:
        z0: projections of the first views, (N, D); row i belongs to row i of ``z1``. They are
            normalised here; a zero row has cosine 0 with every other.
        z1: projections of the second views, (N, D).
        temperature: above 0; 0.1 to 0.5 is usual. A tensor gets its gradient.
        anchors: the images whose two views are anchors; all. With some, the result is their
            share of the loss: the shares of all images add up to it.

    Returns:
        The loss, a scalar in nats, at least 0.

    Raises:
        ValueError: shapes that differ or are not (N, D), integers, fewer than two pairs (there
            would be no negative), or a temperature not above 0 (one on a device is not read: that
            would wait for it).

    >>> z = torch.eye(4)
    >>> round(nt_xent(z, z, temperature=0.5).item(), 4)  # log(1 + 6 exp(-2))
    0.5944
    """
    (z0, z1), temperature = checked_views((z0, z1), temperature)
    if torch.compiler.is_compiling() or not (is_flat(temperature) and are_all(anchors, len(z0))):
        return nt_xent_multi_view((z0, z1), temperature=temperature, anchors=anchors)
    with full_precision(z0):
        asked = any(isinstance(t, Tensor) and t.requires_grad for t in (z0, z1, temperature))
        loss: Tensor = _NTXent.apply(z0, z1, temperature, asked and torch.is_grad_enabled())
    return loss


class _NTXent(torch.autograd.Function):
    """Loss and gradient in one go: a fraction of the operations and of the memory."""

    @staticmethod
    def forward(
        ctx: Any, z0: Tensor, z1: Tensor, temperature: float | Tensor, with_gradient: bool
    ) -> Tensor:
        given = temperature if isinstance(temperature, Tensor) else None
        scale = float(temperature if given is None else given.detach())
        z = torch.cat([z0, z1])
        length = length_of(z)
        u = z.div_(length)
        whole = u.shape[0] <= WHOLE
        loss, g = (_by_matrix if whole else _by_tiles)(u, scale, with_gradient)
        if g is None:
            return loss
        radial = (u * g).sum(1, keepdim=True)
        # Every logit is bilinear in u over the temperature, so that Euler's theorem gives:
        of_temperature = radial.sum() / (-2 * scale) if given is not None else None
        g.addcmul_(u, radial, value=-1).div_(length)
        ctx.number = scale
        ctx.save_for_backward(z0, z1, given, g, of_temperature)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z0, z1, temperature, g, of_temperature = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: through the parts
            inputs = (z0, z1) if temperature is None else (z0, z1, temperature)

            def parts(z0: Tensor, z1: Tensor, t: float | Tensor = ctx.number) -> Tensor:
                return nt_xent_multi_view((z0, z1), temperature=t)

            return (*gradients(parts, grads[0], *inputs), None, None)[:4]
        g = g * grads[0]
        g0, g1 = g[: len(z0)], g[len(z0) :]
        return g0, g1, None if temperature is None else of_temperature * grads[0], None


def _by_matrix(u: Tensor, scale: float, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The loss of unit vectors (2N, D), and its gradient; for few."""
    n = u.shape[0] // 2
    similar = torch.mm(u * (LOG2_E / scale), u.T).exp2_()
    of_image = similar.view(2, n, 2, n).diagonal(dim1=1, dim2=3)  # its views, (2, 2, N)
    positive = of_image[0, 1].clone()
    of_image.zero_()
    negative = similar.sum(1).view(2, n)
    loss = (negative / positive).log1p_().mean()
    if not with_gradient:
        return loss, None
    weight = (negative + positive).mul_(2 * n * scale).reciprocal_()
    pull = (negative * weight).sum(0).neg_()
    weight = weight.view(-1)
    similar.mul_(weight.unsqueeze(1) + weight)
    of_image[0, 1].copy_(pull)
    of_image[1, 0].copy_(pull)
    return loss, torch.mm(similar, u)


def _by_tiles(u: Tensor, scale: float, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """As :func:`_by_matrix`, without the matrix."""
    n = u.shape[0] // 2
    u0, u1 = u[:n], u[n:]
    space = space_for(u, keep=with_gradient)
    negative = self_sums(u, scale, n, space)
    excess = negative.log().view(2, n) - (u0 * u1).sum(1).div_(scale)
    loss = F.softplus(excess).mean()
    if not with_gradient:
        return loss, None
    slope = excess.sigmoid_().div_(2 * n * scale)
    g = self_gradient(slope.view(-1) / negative, u, scale, n, space, kept=True)
    pull = slope.sum(0)[:, None]
    g[:n].addcmul_(u1, pull, value=-1)
    g[n:].addcmul_(u0, pull, value=-1)
    return loss, g


class NTXentLoss(nn.Module):
    """NT-Xent as a module, of two or more views; see :func:`nt_xent`, :func:`nt_xent_multi_view`.

    Args:
        temperature: above 0; an ``nn.Parameter`` is learnt with the rest.
        gather: take the negatives from all processes of ``torch.distributed``. With gradients
            averaged over processes, as DDP does, the gradient is that of the whole batch in
            one process; the value is the loss of the whole batch. Without an initialised group
            it changes nothing.

    >>> NTXentLoss(temperature=0.1)(torch.eye(4), torch.eye(4)).item() < 1e-3
    True
    """

    def __init__(self, temperature: float | Tensor = 0.5, *, gather: bool = True) -> None:
        super().__init__()
        check_above(0, temperature=temperature)
        self.temperature = temperature
        self.gather = gather

    def forward(self, *views: Tensor) -> Tensor:
        """Two or more (N, D) to a scalar."""
        return sum_of_shares(self._share, *views) if self.gather else self._share(*views)

    def _share(self, *views: Tensor, anchors: slice | None = None) -> Tensor:
        if len(views) == 2:
            return nt_xent(*views, temperature=self.temperature, anchors=anchors)
        return nt_xent_multi_view(views, temperature=self.temperature, anchors=anchors)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather={self.gather}"
