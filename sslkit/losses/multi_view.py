"""NT-Xent of any number of views, and what losses over pairs of views share."""

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslkit.embeddings import check_temperature, checked, unit
from sslkit.losses.streaming import log_sum_exp, log_sum_exp_self


def nt_xent_multi_view(
    views: Sequence[Tensor], *, temperature: float | Tensor, anchors: slice | None = None
) -> Tensor:
    """NT-Xent of any number of views of each image.

    Each of the V views of an image is an anchor for each of its V - 1 others: the mean over
    these pairs of the cross-entropy of the positive against all views of all other images. Two
    views give :func:`nt_xent`.

    Args:
        views: V tensors (N, D), or one (V, N, D); row i of each is of image i.
        temperature: above 0. A tensor gets its gradient.
        anchors: the images whose views are anchors, as in :func:`nt_xent`.

    Returns:
        The loss, a scalar in nats, at least 0.

    Raises:
        ValueError: as :func:`nt_xent`; or fewer than two views.

    >>> z = torch.eye(4)
    >>> round(nt_xent_multi_view([z, z, z], temperature=0.5).item(), 4)  # log(1 + 9 exp(-2))
    0.7966
    """
    (negative,), positive, total = pair_logits(views, temperature, anchors)
    return F.softplus(negative - positive).sum() / total


def pair_logits(
    views: Sequence[Tensor],
    temperature: float | Tensor,
    anchors: slice | None = None,
    scales: Sequence[float] = (1.0,),
) -> tuple[list[Tensor], Tensor, int]:
    """What losses over pairs of views are made of: P pairs of the V views, A anchor images.

    Returns:
        For each scale, of both views of each pair, the log-sum-exp over all views of the other
        images of their logits times the scale, (2, P, A); the logits of the pairs, (P, A); and
        the number of terms in the batch, 2 P N.
    """
    views, temperature = checked_views(views, temperature)
    n = len(views[0])
    units = [unit(z) for z in views]
    keys = torch.cat(units)  # (V * N, D)
    if are_all(anchors, n):
        negatives = [
            log_sum_exp_self(keys, temperature=temperature / scale, period=n) for scale in scales
        ]
    else:
        units = [z[anchors] for z in units]
        image = torch.arange(n, device=keys.device)[anchors].repeat(len(views))
        own = image[:, None] + torch.arange(0, len(keys), n, device=keys.device)
        negatives = [
            log_sum_exp(torch.cat(units), keys, temperature=temperature / scale, excluded=own)
            for scale in scales
        ]
    pairs = list(combinations(range(len(views)), 2))
    sides = list(zip(*pairs, strict=True))
    by_view = [negative.view(len(views), -1).unbind() for negative in negatives]
    positive = torch.stack([(units[v] * units[w]).sum(1) for v, w in pairs])
    return (
        [torch.stack([torch.stack([of[v] for v in side]) for side in sides]) for of in by_view],
        positive / temperature,
        2 * len(pairs) * n,
    )


def checked_views(
    views: Sequence[Tensor], temperature: float | Tensor
) -> tuple[tuple[Tensor, ...], float | Tensor]:
    """Two or more views of two or more images, in float32 or wider, and a temperature."""
    if len(views) < 2:
        raise ValueError(f"views must be at least 2, not {len(views)}")
    views = checked(**{f"z{i}": z for i, z in enumerate(views)})
    if len(views[0]) < 2:
        raise ValueError(f"z0 must have at least 2 rows, for a negative, not {len(views[0])}")
    return views, check_temperature(temperature, views[0])


def are_all(anchors: slice | None, n: int) -> bool:
    """Whether ``anchors`` are all n rows, in order."""
    return anchors is None or range(n)[anchors] == range(n)
