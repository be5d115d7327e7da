"""Colours in CIE Lab: lightness alone, and bins of the ab plane with the codes over them."""

from functools import cache

import torch
from kornia.color import linear_rgb_to_rgb, rgb_to_lab, rgb_to_linear_rgb, rgb_to_xyz
from torch import Tensor

from sslkit.embeddings import check_above, check_at_least, full_precision

CHUNK = 2**16  # pixels whose distances to every bin are in memory at once


def lightness(images: Tensor) -> Tensor:
    """The grey images of the same Lab lightness L, which is a function of the luminance alone.

    Args:
        images: (N, 3, H, W) in [0, 1], sRGB.

    Returns:
        (N, 3, H, W) in [0, 1], three equal channels.

    >>> lightness(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
    tensor([0.4985, 0.4985, 0.4985])
    """
    luminance = rgb_to_xyz(rgb_to_linear_rgb(images))[:, 1:2].expand_as(images)
    return linear_rgb_to_rgb(luminance)[:, :1].clamp(0, 1).repeat(1, 3, 1, 1)


@cache
def gamut_bins(grid: int = 10) -> Tensor:
    """The bins of the ab plane that sRGB reaches (Zhang et al. 2016, arXiv:1603.08511).

    A bin is a multiple of ``grid`` in a and b that the colour of some pixel is rounded to. At 10
    these are 261, the same from all 256^3 colours as from the 86^3 whose values are multiples of
    3, which are looked at. The paper speaks of 313 and does not say how it counts; bins with
    their middle in the gamut are 229, corners of a cell that the gamut touches 306.

    Args:
        grid: side of a bin, at least 4: smaller ones fall between the colours looked at.

    Returns:
        (Q, 2), float32, the bins' middles in order. It is shared: do not write to it.

    Raises:
        ValueError: a grid below 4.

    >>> gamut_bins().shape
    torch.Size([261, 2])
    """
    check_at_least(4, grid=grid)
    values = torch.arange(0, 256, 3) / 255
    rgb = torch.cartesian_prod(values, values, values).T[None, :, :, None]
    a, b = (rgb_to_lab(rgb)[0, 1:, :, 0] / grid).round().long()
    codes = (a * 1000 + b + 500).unique()
    a = codes.div(1000, rounding_mode="floor")
    return torch.stack([a, codes - 1000 * a - 500], 1).float() * grid


def soft_encode(
    ab: Tensor, bins: Tensor, *, neighbours: int = 5, sigma: float = 5.0
) -> tuple[Tensor, Tensor]:
    """Colours as weights of their nearest bins (Zhang et al. 2016, arXiv:1603.08511, eq. 2).

    Weights are a Gaussian of the distance to the bin, and sum to 1 a pixel.

    Args:
        ab: (N, 2, h, w). bins: (Q, 2).
        neighbours: K, bins a pixel, 1 to Q.
        sigma: of the Gaussian, above 0, in the units of ab.

    Returns:
        Indices of the bins, nearest first, and their weights, float32: both (N, K, h, w).

    Raises:
        ValueError: ab or a number outside its shape or range.

    >>> bins = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 50.0]])
    >>> index, weights = soft_encode(torch.tensor([5.0, 0.0]).view(1, 2, 1, 1), bins, neighbours=2)
    >>> index.flatten().sort().values, weights.flatten()
    (tensor([0, 1]), tensor([0.5000, 0.5000]))
    """
    if ab.ndim != 4 or ab.shape[1] != 2:
        raise ValueError(f"ab must be (N, 2, h, w), not {tuple(ab.shape)}")
    if not 1 <= neighbours <= len(bins):
        raise ValueError(f"neighbours must be 1 to {len(bins)}, not {neighbours}")
    check_above(0, sigma=sigma)
    pixels = ab.float().movedim(1, -1).reshape(-1, 2)
    exact = "donot_use_mm_for_euclid_dist"
    found = [
        torch.cdist(part, bins.float(), compute_mode=exact).topk(neighbours, largest=False)
        for part in pixels.split(CHUNK)
    ]
    distance, index = (torch.cat(parts) for parts in zip(*found, strict=True))
    weights = (-distance.square() / (2 * sigma**2)).softmax(1)
    n, _, h, w = ab.shape
    index, weights = (x.view(n, h, w, neighbours).movedim(-1, 1) for x in (index, weights))
    return index, weights


def annealed_mean(logits: Tensor, bins: Tensor, *, temperature: float = 0.38) -> Tensor:
    """The mean colour of a sharpened distribution (Zhang et al. 2016, arXiv:1603.08511, eq. 5).

    Args:
        logits: (N, Q, h, w). bins: (Q, 2).
        temperature: T, above 0: towards 0 the mode, at 1 the mean.

    Returns:
        (N, 2, h, w), float32.

    Raises:
        ValueError: a temperature not above 0.

    >>> bins = torch.tensor([[0.0, 0.0], [10.0, 20.0]])
    >>> annealed_mean(torch.zeros(1, 2, 1, 1), bins).flatten()
    tensor([ 5., 10.])
    """
    check_above(0, temperature=temperature)
    with full_precision(logits):
        probabilities = (logits.float() / temperature).softmax(1)
        return torch.einsum("nqhw,qc->nchw", probabilities, bins.float())


def rebalancing(prior: Tensor, bins: Tensor, *, mix: float = 0.5, sigma: float = 5.0) -> Tensor:
    """Weights of the bins that favour rare colours (Zhang et al. 2016, arXiv:1603.08511, eq. 4).

    The prior is smoothed, each bin taking the mean of its surroundings under a Gaussian, and made
    to sum to 1; weights are 1 / ((1 - mix) smoothed + mix / Q), with mean 1 under it.

    Args:
        prior: (Q,), how often each bin is met; any positive sum. bins: (Q, 2).
        mix: the paper's lambda, the share of the uniform distribution, in [0, 1]; at 1 all
            weights are 1.
        sigma: of the Gaussian, above 0, in the units of ab.

    Returns:
        (Q,), float32.

    Raises:
        ValueError: a prior that is no distribution over the bins, a mix or sigma out of range.

    >>> rebalancing(torch.ones(261), gamut_bins()).mean()
    tensor(1.)
    """
    if prior.shape != bins.shape[:1] or (prior < 0).any() or not prior.sum() > 0:
        raise ValueError(
            f"prior must be {len(bins)} numbers of at least 0 with a sum above it, not "
            f"{tuple(prior.shape)} with a sum of {prior.sum():g}"
        )
    if not 0 <= mix <= 1:
        raise ValueError(f"mix must be between 0 and 1, not {mix}")
    check_above(0, sigma=sigma)
    prior, bins = prior.float(), bins.float()
    square = (bins[:, None] - bins).square().sum(-1)
    smoothed = (-square / (2 * sigma**2)).softmax(1) @ prior
    smoothed = smoothed / smoothed.sum()
    weights = 1 / ((1 - mix) * smoothed + mix / len(bins))
    return weights / (smoothed @ weights)
