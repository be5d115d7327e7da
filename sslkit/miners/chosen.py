"""A miner with options of its own, as plain data can say it."""

import inspect
from collections.abc import Callable

from torch import Tensor

from sslkit.miners.tuples import Pairs, Triplets


class Miner:
    """A miner with some of its options, for a config; in code, ``functools.partial`` does it.

    Args:
        miner: from embeddings and labels to tuples, such as :func:`sslkit.miners.semi_hard`.
        options: keyword arguments of it.

    Raises:
        ValueError: an option that the miner does not have.

    >>> import torch
    >>> from sslkit.miners import semi_hard
    >>> z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> len(Miner(semi_hard, {"margin": 0.3})(z, torch.tensor([7, 7, 3])).anchor)  # 0.8 > 0.4 + 0.3
    0
    """

    def __init__(
        self,
        miner: Callable[..., Pairs] | Callable[..., Triplets],
        options: dict[str, bool | float],
    ) -> None:
        known = list(inspect.signature(miner).parameters)[2:]
        for name in options:
            if name not in known:
                raise ValueError(
                    f"{miner.__name__} has no option {name!r}; choose from {', '.join(known)}"
                )
        self.miner, self.options = miner, options

    def __call__(self, embeddings: Tensor, labels: Tensor) -> Pairs | Triplets:
        return self.miner(embeddings, labels, **self.options)
