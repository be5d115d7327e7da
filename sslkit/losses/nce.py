"""Noise-contrastive estimation (Gutmann and Hyvärinen 2010; Wu et al. 2018, arXiv:1805.01978)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslkit.embeddings import check_tensor


def nce(positive: Tensor, negatives: Tensor, *, classes: int) -> Tensor:
    """Is a sample of the data or of uniform noise? A softmax over many classes, estimated.

    With P the model's probability of a class and m samples of noise, drawn uniformly out of n
    classes, h = P / (P + m / n) is the probability that a sample is the data's; the loss is the
    mean over the batch of -log h of the positive and -log(1 - h) of all m samples of noise. It is
    computed in float32 (float64 for float64 input), under autocast too.

    Args:
        positive: (N,), log P of each row's own class: its logit less log Z.
        negatives: (N, m), log P of the classes drawn for it.
        classes: n, at least 1.

    Returns:
        The loss, a scalar in nats, at least 0.

    Raises:
        ValueError: shapes that do not fit, integers, nothing at all, or no classes.

    >>> uniform = torch.full((2, 4), -math.log(4.0))  # P = 1 / n = m / n / 4: h = 1 / 5
    >>> round(nce(uniform[:, 0], uniform, classes=4).item(), 4)  # log 5 + 4 log(5 / 4)
    2.502
    """
    check_tensor("positive", positive)
    check_tensor("negatives", negatives)
    shapes = tuple(positive.shape), tuple(negatives.shape)
    if len(shapes[0]) != 1 or len(shapes[1]) != 2 or shapes[0] != shapes[1][:1] or 0 in shapes[1]:
        raise ValueError(
            f"positive and negatives must be (N,) and (N, m), not {shapes[0]} and {shapes[1]}"
        )
    if not (positive.is_floating_point() and negatives.is_floating_point()):
        raise ValueError(f"logits must be floats, not {positive.dtype} and {negatives.dtype}")
    if classes < 1:
        raise ValueError(f"classes must be at least 1, not {classes}")
    noise = math.log(negatives.shape[1] / classes)
    dtype = torch.promote_types(torch.promote_types(positive.dtype, negatives.dtype), torch.float32)
    own = F.softplus(noise - positive.to(dtype))
    return (own + F.softplus(negatives.to(dtype) - noise).sum(1)).mean()
