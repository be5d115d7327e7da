"""The index tuples that miners return and metric losses take."""

from typing import NamedTuple

from torch import Tensor


class Pairs(NamedTuple):
    """P pairs of rows of a batch.

    Attributes:
        first: indices, (P,).
        second: indices, (P,).
        same: whether both rows have one label, (P,), boolean.
    """

    first: Tensor
    second: Tensor
    same: Tensor


class Triplets(NamedTuple):
    """T triplets of rows of a batch: the positive has the anchor's label, the negative another.

    Attributes:
        anchor: indices, (T,).
        positive: indices, (T,); never the anchor.
        negative: indices, (T,).
    """

    anchor: Tensor
    positive: Tensor
    negative: Tensor
