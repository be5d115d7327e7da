"""Policies that choose some of many: scores, drawing by them, and what REINFORCE needs of it."""

import logging
import math

import torch
from torch import Tensor, nn

from sslkit.training import Optimizer

logger = logging.getLogger("sslkit")
NEVER = -1e9  # the score of what must not be drawn; finite, so that its gradient is 0 and not NaN


class Scorer(nn.Sequential):
    """Features (..., F) to scores (...), by two linear layers; at first every score is 0.

    The scores are float32. Its input is detached: what is scored learns nothing from it.

    >>> Scorer(3)(torch.ones(2, 4, 3)).shape
    torch.Size([2, 4])
    """

    def __init__(self, features: int, hidden_dim: int = 16) -> None:
        last = nn.Linear(hidden_dim, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(features, hidden_dim), nn.ReLU(), last)

    def forward(self, features: Tensor) -> Tensor:
        given = features.detach().to(self[0].weight.dtype)
        return super().forward(given).squeeze(-1).float()


def tell_of_rate(name: str, optimizer: Optimizer, policy_lr: float) -> None:
    """Say that a policy's learning rate is one for AdamW, where the optimiser is another.

    >>> tell_of_rate("PADS", Optimizer(name="adamw"), 0.02)
    """
    if policy_lr and optimizer.name != "adamw":
        logger.warning(
            "%s: policy_lr %g is a rate for AdamW; by %s the policy may learn nothing",
            *(name, policy_lr, optimizer.name),
        )


def bumps(x: Tensor, places: int, *, reach: float = 0.8) -> Tensor:
    """How near numbers lie to places from -reach to reach, as a Gaussian of their spacing has it.

    So a linear layer can prefer a narrow band of them. Those beyond count as the ends.

    Args:
        x: (...). places: how many there are, 2 or more.

    Returns:
        From 0 to 1, (..., places).

    >>> bumps(torch.tensor([0.0, 9.0]), 3).round(decimals=2)
    tensor([[0.6100, 1.0000, 0.6100],
            [0.1400, 0.6100, 1.0000]])
    """
    centres = torch.linspace(-reach, reach, places, dtype=x.dtype, device=x.device)
    spacing = 2 * reach / (places - 1)
    return ((x.clamp(-reach, reach)[..., None] - centres) / spacing).square().mul(-0.5).exp()


def gumbel_top_k(scores: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """k different places of (..., M) scores in the order in which they are drawn, (..., k).

    Each draw takes a place with probability in proportion to exp(score) among those left, as the
    k largest sums of score and Gumbel noise are (Kool et al. 2019, arXiv:1903.06059).

    >>> gumbel_top_k(torch.tensor([0.0, NEVER, 0.0]), 2).sum()
    tensor(2)
    """
    noise = torch.empty_like(scores).exponential_(generator=generator).log()
    return (scores - noise).topk(k).indices


def log_probabilities(scores: Tensor, picks: Tensor) -> Tensor:
    """The log-probability of each pick given those before it (Plackett-Luce), (..., k).

    Args:
        scores: (..., M). picks: (..., k), different places in the order in which they were drawn.

    >>> log_probabilities(torch.zeros(3), torch.tensor([2, 0])).exp()
    tensor([0.3333, 0.5000])
    """
    chosen = scores.gather(-1, picks)
    rest = scores.scatter(-1, picks, NEVER).logsumexp(-1, keepdim=True)
    left = torch.cat([rest, chosen.flip(-1)], -1).logcumsumexp(-1)  # of all but the first picks
    return chosen - left[..., 1:].flip(-1)


def relative_entropy(scores: Tensor) -> Tensor:
    """The entropy of the first draw as a part of the uniform draw's, (...): 1 where it is uniform.

    1 also where there is nothing to choose.

    >>> relative_entropy(torch.tensor([0.0, NEVER, 0.0])), relative_entropy(torch.zeros(1))
    (tensor(1.), tensor(1.))
    """
    log_p = scores.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    most = (scores > NEVER / 2).sum(-1).to(entropy.dtype).log()
    return torch.where(most > 0, entropy / most.masked_fill(most <= 0, 1), torch.ones_like(most))


def standardised(x: Tensor, among: Tensor | None = None) -> Tensor:
    """(N,) less its mean, by its standard deviation; all 0 where all are alike.

    Args:
        among: bool (N,), whose mean and deviation are taken; None for all.

    >>> standardised(torch.tensor([1.0, 3.0])), standardised(torch.ones(2))
    (tensor([-1.,  1.]), tensor([0., 0.]))
    """
    weight = torch.ones_like(x) if among is None else among.to(x.dtype)
    total = weight.sum().clamp_min(1)
    x = x - (weight * x).sum() / total
    deviation = ((weight * x.square()).sum() / total).sqrt()
    return torch.where(deviation > 1e-12, x / deviation.clamp_min(1e-12), torch.zeros_like(x))


def ranks(distance: Tensor, candidates: Tensor) -> Tensor:
    """Of each row's candidates the place by distance, 0 the nearest and 1 the farthest, (N, M).

    Args:
        distance: (N, M). candidates: bool (N, M), as many in each row.

    >>> ranks(torch.tensor([[5.0, 0.0, 7.0]]), torch.tensor([[True, False, True]]))[0, [0, 2]]
    tensor([0., 1.])
    """
    place = distance.masked_fill(~candidates, math.inf).argsort(1).argsort(1)
    return place / (candidates.sum(1, keepdim=True) - 1).clamp_min(1)
