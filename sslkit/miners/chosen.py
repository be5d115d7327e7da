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
        takes = inspect.signature(miner).parameters.values()
        known = [p.name for p in takes if isinstance(p.default, bool | float)]
        for name in options:
            if name not in known:
                choices = ", ".join(known) or "none"
                raise ValueError(f"{name_of(miner)} has no option {name!r}; choose from {choices}")
        self.miner, self.options = miner, options

    def __call__(self, embeddings: Tensor, labels: Tensor) -> Pairs | Triplets:
        return self.miner(embeddings, labels, **self.options)

    def __repr__(self) -> str:
        return f"{name_of(self.miner)}({', '.join(f'{k}={v}' for k, v in self.options.items())})"


def name_of(miner: Callable[..., object] | None) -> str:
    """A miner's name, for ``extra_repr``.

    >>> name_of(None), name_of(name_of)
    ('None', 'name_of')
    """
    return getattr(miner, "__name__", repr(miner))
