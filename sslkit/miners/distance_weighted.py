"""Distance-weighted sampling of negatives (Wu et al. 2017, arXiv:1706.07567)."""

import math

import torch
from torch import Tensor

from sslkit.embeddings import check_labels, checked, distances, unit
from sslkit.miners.pairs import pair_masks
from sslkit.miners.triplets import nothing
from sslkit.miners.tuples import Triplets


@torch.no_grad()
def distance_weighted(
    embeddings: Tensor,
    labels: Tensor,
    *,
    cutoff: float = 0.5,
    farthest: float = 1.4,
    generator: torch.Generator | None = None,
) -> Triplets:
    """Triplets whose negatives are drawn evenly over distances (Wu et al. 2017).

    For each anchor and positive one negative is drawn, with probability in proportion to 1 / q(d),
    where d is its Euclidean distance from the anchor at length 1 and q the density of distances
    between random points of the sphere: q(d) = d^(D - 2) (1 - d^2 / 4)^((D - 3) / 2). It is
    computed as a logarithm, and so holds for large D. A pair without a negative is left out.

    Args:
        embeddings: (N, D), normalised here.
        labels: integers, (N,).
        cutoff: smaller distances count as this one, or hardly any but the nearest negatives would
            be drawn; above 0.
        farthest: negatives beyond this distance, which a triplet loss would hardly feel, are not
            drawn unless the anchor has no other; at most 2, the diameter of the sphere.
        generator: where the randomness comes from, on the embeddings' device; None for torch's.

    Raises:
        ValueError: embeddings that are not floating-point (N, D), labels that are not N integers,
            or not 0 < cutoff < farthest <= 2.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> distance_weighted(z, torch.tensor([7, 7, 3])).negative
    tensor([2, 2])
    """
    if not 0 < cutoff < farthest <= 2:
        raise ValueError(
            f"cutoff and farthest must be 0 < cutoff < farthest <= 2, not {cutoff} and {farthest}"
        )
    (embeddings,) = checked(embeddings=embeddings)
    check_labels(labels, len(embeddings))
    if not len(embeddings):
        return nothing(labels)
    distance = distances(unit(embeddings))
    positive, negative = pair_masks(labels)
    near = negative & (distance <= farthest)
    eligible = torch.where(near.any(1, keepdim=True), near, negative)

    dim = embeddings.shape[1]
    clipped = distance.clamp_min(cutoff)
    height = (1 - clipped.square() / 4).clamp_min(torch.finfo(distance.dtype).eps)
    log_weight = (2 - dim) * clipped.log() + (3 - dim) / 2 * height.log()
    log_weight = log_weight.masked_fill(~eligible, -math.inf)
    most = log_weight.amax(1, keepdim=True).clamp_min(torch.finfo(distance.dtype).min)
    cumulated = (log_weight - most).exp().cumsum(1)  # (N, N)

    drawn = 1 - torch.rand(  # above 0, so that no negative of weight 0 is met
        distance.shape, generator=generator, dtype=distance.dtype, device=distance.device
    )
    met = torch.searchsorted(cumulated, drawn * cumulated[:, -1:]).clamp_max(len(distance) - 1)
    anchor, other = (positive & negative.any(1, keepdim=True)).nonzero(as_tuple=True)
    return Triplets(anchor, other, met[anchor, other])
