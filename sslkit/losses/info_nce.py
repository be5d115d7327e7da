"""InfoNCE (van den Oord et al. 2018, arXiv:1807.03748; He et al. 2020, arXiv:1911.05722)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.distributed import sum_of_shares
from sslkit.embeddings import check_above, check_temperature, checked, unit
from sslkit.losses.streaming import log_sum_exp


def info_nce(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float | Tensor,
    anchors: slice | None = None,
) -> Tensor:
    """InfoNCE: the cross-entropy of each query's own key among all keys.

    The mean over queries of -log(exp(q . k+) / (exp(q . k+) + sum over negatives of exp(q . k))),
    with cosines over the temperature. Negatives are the keys of the other queries (van den Oord
    et al. 2018), or, where given, a queue or memory and only that (MoCo, He et al. 2020). One
    direction: swap the arguments and average for both, as CLIP does.

    Args:
        query: (N, D), normalised here.
        positive: the key of each query, (N, D), normalised here.
        negatives: a queue of keys for all queries, (M, D), normalised here; None for the keys of
            the other queries. It gets its gradient if it asks for one.
        temperature: above 0; MoCo has 0.07 and 0.2. A tensor gets its gradient.
        anchors: the queries to score; all. With some, the result is their share of the loss: the
            shares of all queries add up to it.

    Returns:
        The loss, a scalar in nats, at least 0.

    Raises:
        ValueError: shapes that do not fit, integers, one query without a queue or an empty queue
            (there would be no negative), or a number not above 0 as temperature.

    >>> k = torch.eye(4)
    >>> round(info_nce(k, k, temperature=0.5).item(), 4)  # log(1 + 3 exp(-2))
    0.3408
    >>> round(info_nce(k[:1], k[:1], k[1:], temperature=0.5).item(), 4)
    0.3408
    """
    query, positive = checked(query=query, positive=positive)
    if negatives is not None:
        (negatives,) = checked(negatives=negatives)
        dtype = torch.promote_types(query.dtype, negatives.dtype)
        query, positive, negatives = query.to(dtype), positive.to(dtype), negatives.to(dtype)
    temperature = check_temperature(temperature, query)
    n = len(query)
    own = slice(None) if anchors is None else anchors
    excluded = None
    query, positive = unit(query), unit(positive)
    if negatives is None:
        if n < 2:
            raise ValueError(f"query must have at least 2 rows without negatives, not {n}")
        keys = positive
        excluded = torch.arange(n, device=query.device)[own, None]
    else:
        shape = tuple(negatives.shape)
        if not shape[0] or shape[1] != query.shape[1]:
            raise ValueError(f"negatives must be (M, {query.shape[1]}), M at least 1, not {shape}")
        keys = unit(negatives)
    if not n:
        raise ValueError("query must have at least 1 row, not 0")
    query, positive = query[own], positive[own]
    negative = log_sum_exp(query, keys, temperature=temperature, excluded=excluded)
    return F.softplus(negative - (query * positive).sum(1) / temperature).sum() / n


class InfoNCELoss(nn.Module):
    """InfoNCE as a module; see :func:`info_nce`.

    Args:
        temperature: above 0.
        gather: take the keys of all processes as negatives (a queue is taken as it is, and is
            expected to be the same everywhere). The value and, averaged over processes as DDP
            does, the gradient are those of the whole batch in one process.

    >>> InfoNCELoss(temperature=0.07)(torch.eye(4), torch.eye(4)).item() < 1e-3
    True
    """

    def __init__(self, temperature: float | Tensor = 0.2, *, gather: bool = True) -> None:
        super().__init__()
        check_above(0, temperature=temperature)
        self.temperature = temperature
        self.gather = gather

    def forward(self, query: Tensor, positive: Tensor, negatives: Tensor | None = None) -> Tensor:
        """(N, D), (N, D) and maybe (M, D) to a scalar."""

        def share(query: Tensor, positive: Tensor, anchors: slice | None = None) -> Tensor:
            return info_nce(
                query, positive, negatives, temperature=self.temperature, anchors=anchors
            )

        return sum_of_shares(share, query, positive) if self.gather else share(query, positive)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather={self.gather}"
