"""Negative cosine similarity, the loss of SimSiam (Chen and He 2021, arXiv:2011.10566)."""

from torch import Tensor, nn

from sslkit.distributed import mean_over_processes
from sslkit.embeddings import checked, unit


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """Minus the mean cosine between predictions and targets (Chen and He 2021, SimSiam).

    The mean over rows i of -cos(predictions_i, targets_i). Nothing is detached here, and without
    a stop-gradient both branches collapse: pass ``z.detach()``, or the output of a momentum
    branch, as targets. SimSiam averages the two directions, ``negative_cosine(p0, z1.detach())``
    and ``negative_cosine(p1, z0.detach())``; BYOL (Grill et al. 2020, arXiv:2006.07733)
    minimises 2 + 2 times this loss in each. Computed in float32 (float64 for float64 input).

    Args:
        predictions: outputs of the predictor for one view, (N, D); normalised here. A zero row
            has cosine 0 with its target.
        targets: projections of the other view, (N, D); normalised here.

    Returns:
        The loss, a scalar in [-1, 1].

    Raises:
        ValueError: shapes that differ or are not (N, D), no rows, or integers.

    >>> import torch
    >>> p = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    >>> negative_cosine(p, torch.tensor([[3.0, 0.0], [0.0, 1.0]])).item()  # -(1 + 0) / 2
    -0.5
    """
    predictions, targets = checked(predictions=predictions, targets=targets)
    if not len(predictions):
        raise ValueError("predictions must have at least 1 row, not 0")
    return -(unit(predictions) * unit(targets)).sum(1).mean()


class NegativeCosineLoss(nn.Module):
    """Negative cosine similarity as a module; see :func:`negative_cosine`.

    Args:
        gather: average over the rows of all processes of ``torch.distributed``, however many
            each has. Every row stands alone, so only two numbers are exchanged. With gradients
            averaged over processes, as DDP does, value and gradient are those of the whole
            batch in one process. Without an initialised group it changes nothing.

    >>> import torch
    >>> NegativeCosineLoss()(torch.eye(4), torch.eye(4)).item()
    -1.0
    """

    def __init__(self, *, gather: bool = True) -> None:
        super().__init__()
        self.gather = gather

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """(N, D) and (N, D) to a scalar."""
        loss = negative_cosine(predictions, targets)
        return mean_over_processes(loss, len(predictions)) if self.gather else loss

    def extra_repr(self) -> str:
        return f"gather={self.gather}"
