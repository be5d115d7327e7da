"""Cross-entropy with soft targets, as mixup makes them (Zhang et al. 2018, arXiv:1710.09412)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import all_sum
from sslkit.embeddings import check_tensor, checked

IGNORED = -100  # the class index that torch leaves out


def soft_cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of a classifier with class probabilities or indices as targets.

    The mean over rows of -sum over classes c of t_c log softmax(logits)_c. Probabilities come
    from mixup (Zhang et al. 2018, arXiv:1710.09412), which mixes two images and, with the same
    weight w, their one-hot labels, w a + (1 - w) b, or from CutMix (Yun et al. 2019,
    arXiv:1905.04899), where w is the share of the area. Label smoothing (Szegedy et al. 2016,
    arXiv:1512.00567) turns t into (1 - label_smoothing) t + label_smoothing / C. It is
    computed in float32 (float64 for float64 input), under autocast too.

    Args:
        logits: scores before the softmax, (N, C).
        targets: probabilities, (N, C), floating-point, that add up to 1 in a row; or class
            indices in [0, C), (N,), integers. Their values are not read, which would wait for
            the device: torch itself stops at an index out of range, and leaves out a row of
            index -100.
        label_smoothing: in [0, 1); 0.1 is usual.

    Returns:
        The loss, a scalar in nats, at least 0; 0, with zero gradient, if no row counts.

    Raises:
        ValueError: logits that are not floating-point (N, C) with a row and a class, targets of
            another shape or dtype, or label_smoothing out of range.

    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> round(soft_cross_entropy(logits, torch.tensor([0])).item(), 4)  # log(1 + exp(-2))
    0.1269
    >>> round(soft_cross_entropy(logits, torch.tensor([[0.5, 0.5]])).item(), 4)  # 0.1269 + 1
    1.1269
    """
    total, count = _sum_and_count(logits, targets, label_smoothing)
    return total / count.clamp_min(1)


def _sum_and_count(
    logits: Tensor, targets: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The sum of the losses of rows, and how many count."""
    _check(label_smoothing)
    (logits,) = checked(logits=logits)
    check_tensor("targets", targets)
    if 0 in logits.shape:
        raise ValueError(f"logits must have a row and a class, not {tuple(logits.shape)}")
    n, c = logits.shape
    if targets.is_floating_point() and targets.shape == (n, c):
        logits, targets = checked(logits=logits, targets=targets)
    elif _is_integer(targets) and targets.shape == (n,):
        targets = targets.long()
    else:
        raise ValueError(
            f"targets must be floating-point probabilities ({n}, {c}) or integer class indices "
            f"({n},), not {targets.dtype} of shape {tuple(targets.shape)}"
        )
    total = F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum")
    if targets.ndim == 1:
        return total, (targets != IGNORED).sum().to(logits.dtype)
    return total, logits.new_full((), n)


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _check(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")


class SoftCrossEntropyLoss(nn.Module):
    """Cross-entropy with soft targets as a module; see :func:`soft_cross_entropy`.

    Args:
        label_smoothing: in [0, 1).
        gather: average over the rows of all processes of ``torch.distributed``, however many
            each has; without it DDP gives every process the same weight. Only two numbers are
            exchanged. Without an initialised group it changes nothing.

    >>> SoftCrossEntropyLoss()(50 * torch.eye(4), torch.eye(4)).item() < 1e-6
    True
    """

    def __init__(self, *, label_smoothing: float = 0.0, gather: bool = True) -> None:
        super().__init__()
        _check(label_smoothing)
        self.label_smoothing = label_smoothing
        self.gather = gather

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(N, C) and (N, C) or (N,) to a scalar."""
        total, count = _sum_and_count(logits, targets, self.label_smoothing)
        if self.gather:
            count = all_sum(count)
        loss = total / count.clamp_min(1)
        return all_sum(loss) if self.gather else loss

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}, gather={self.gather}"
