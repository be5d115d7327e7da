"""What the losses over pairs share: the mean over a batch's pairs, all of them or mined ones."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from sslkit.embeddings import check_labels, check_tensor
from sslkit.miners import Pairs, Triplets

Tuples = TypeVar("Tuples", Pairs, Triplets)


def mean_over_pairs(
    term: Callable[[Tensor, Tensor], Tensor],
    distance: Tensor,
    labels: Tensor | None,
    pairs: Pairs | None,
) -> Tensor:
    """The mean over pairs of a term; 0 where there is none.

    Args:
        term: takes distances and whether the labels are the same, both of one shape.
        distance: between the rows of the batch, (N, N).
        labels: integers, (N,), for all pairs.
        pairs: these and no others.

    Raises:
        ValueError: labels that are not N integers, both labels and pairs, or neither.

    >>> distance = torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    >>> mean_over_pairs(lambda d, same: d, distance, torch.tensor([0, 1]), None)
    tensor(3.)
    """
    check_one(labels=labels, pairs=pairs)
    if pairs is not None:
        check_tuples(Pairs, pairs)
        terms = term(distance[pairs.first, pairs.second], pairs.same)
        return terms.sum() / max(len(terms), 1)
    assert labels is not None
    n = len(distance)
    check_labels(labels, n)
    itself = torch.eye(n, dtype=torch.bool, device=distance.device)
    terms = term(distance, labels[:, None] == labels).masked_fill(itself, 0)  # each pair twice
    return terms.sum() / max(n * (n - 1), 1)


def check_one(**arguments: object) -> None:
    """Raise ValueError unless exactly one of two arguments is given.

    >>> check_one(labels=None, pairs=None)
    Traceback (most recent call last):
    ...
    ValueError: exactly one of labels and pairs must be given, not 0
    """
    given = sum(argument is not None for argument in arguments.values())
    if given != 1:
        raise ValueError(f"exactly one of {' and '.join(arguments)} must be given, not {given}")


def check_tuples(kind: type[Pairs] | type[Triplets], tuples: object) -> None:
    """Raise ValueError unless a miner's tuples are of a kind, with indices of one length.

    >>> check_tuples(Triplets, Pairs(torch.arange(2), torch.arange(2), torch.ones(2) > 0))
    Traceback (most recent call last):
    ...
    ValueError: expected Triplets from a miner, not Pairs
    """
    if not isinstance(tuples, kind):
        raise ValueError(f"expected {kind.__name__} from a miner, not {type(tuples).__name__}")
    for name, value in tuples._asdict().items():
        check_tensor(name, value)
        dtype = torch.bool if name == "same" else torch.int64
        if value.dtype != dtype or value.shape != (len(tuples[0]),):
            raise ValueError(
                f"{name} must be {dtype} of shape ({len(tuples[0])},), not {value.dtype} of shape "
                f"{tuple(value.shape)}"
            )


def mined(
    miner: Callable[[Tensor, Tensor], Tuples] | None,
    kind: type[Tuples],
    embeddings: Tensor,
    labels: Tensor,
) -> Tuples | None:
    """What a miner finds, checked; None without a miner.

    >>> mined(None, Pairs, torch.eye(2), torch.arange(2)) is None
    True
    """
    if miner is None:
        return None
    tuples = miner(embeddings, labels)
    check_tuples(kind, tuples)
    return tuples
