"""What a fine-tuning score follows from besides weights and data: the paper's, and budgets."""

import math
from dataclasses import dataclass, replace
from typing import TypeVar


def _spaced(low: float, high: float, n: int) -> tuple[float, ...]:
    """n powers of ten, rounded so that they are the same numbers on every machine."""
    return tuple(float(f"{10 ** (low + (high - low) * i / (n - 1)):.6g}") for i in range(n))


def check(fits: bool, says: str, value: object) -> None:
    if not fits:
        raise ValueError(f"{says}, not {value!r}")


def _check_sgd(recipe: "Recipe | SemiRecipe") -> None:
    check(recipe.steps is None or recipe.steps >= 1, "steps must be at least 1", recipe.steps)
    check(recipe.batch_size >= 1, "batch_size must be at least 1", recipe.batch_size)
    check(0 <= recipe.momentum < 1, "momentum must be at least 0 and below 1", recipe.momentum)
    says = "min_scale must be above 0 and at most 1"
    check(0 < recipe.min_scale <= 1, says, recipe.min_scale)
    check(recipe.seed >= 0, "seed must be at least 0", recipe.seed)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a fine-tuning score follows from besides weights and data; by default the paper's.

    Args:
        steps: of SGD in each training, at least 1.
        batch_size: images a step, at least 1.
        rates: learning rates to choose from, each above 0.
        decays: learning rate times weight decay to choose from, each at least 0.
        momentum: Nesterov's, in [0, 1).
        min_scale: least part of an image's area that a training crop covers, above 0, at most 1.
        validation: part of train that is held out to choose by, between 0 and 1.
        seed: of the part held out, the order of images and their crops; at least 0.

    Raises:
        ValueError: a value outside its range.

    >>> import json
    >>> from dataclasses import asdict
    >>> recipe = Recipe(steps=100)
    >>> recipe.rates[:3], len(recipe.rates), recipe.decays[-2:], len(recipe.decays)
    ((0.0001, 0.000316228, 0.001), 7, (0.001, 0.0), 8)
    >>> json.dumps(asdict(recipe))[:33]
    '{"steps": 100, "batch_size": 256,'
    """

    steps: int = 20_000
    batch_size: int = 256
    rates: tuple[float, ...] = _spaced(-4, -1, 7)
    decays: tuple[float, ...] = (*_spaced(-6, -3, 7), 0.0)
    momentum: float = 0.9
    min_scale: float = 0.08
    validation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_sgd(self)
        check(0 < self.validation < 1, "validation must be between 0 and 1", self.validation)
        rates, decays = self.rates, self.decays
        check(
            len(rates) > 0 and all(0 < rate < math.inf for rate in rates),
            "rates must be one or more finite numbers above 0",
            rates,
        )
        check(
            len(decays) > 0 and all(0 <= decay < math.inf for decay in decays),
            "decays must be one or more finite numbers of at least 0",
            decays,
        )


@dataclass(frozen=True, kw_only=True)
class SemiRecipe:
    """As :class:`Recipe`, for a part of the labels; by default the paper's for 1 % of them.

    Args:
        fraction: part of the labels that is used, above 0, at most 1.
        epochs: times that each of these images is seen, at least 1.
        rate: the learning rate at a batch of 256, above 0; it grows with the batch.
        batch_size: images a step. The paper's 4096 is more than 1 % of most sets; with fewer
            labels than this, all of them are a batch.
        steps: a budget: no more than these, at least 1; None for all of the epochs.
        momentum, min_scale, seed: as of :class:`Recipe`.

    Raises:
        ValueError: a value outside its range.

    >>> SEMI10.fraction, SEMI10.epochs
    (0.1, 30)
    """

    fraction: float = 0.01
    epochs: int = 60
    rate: float = 0.05
    batch_size: int = 256
    steps: int | None = None
    momentum: float = 0.9
    min_scale: float = 0.08
    seed: int = 0

    def __post_init__(self) -> None:
        _check_sgd(self)
        check(0 < self.fraction <= 1, "fraction must be above 0 and at most 1", self.fraction)
        check(self.epochs >= 1, "epochs must be at least 1", self.epochs)
        check(0 < self.rate < math.inf, "rate must be a finite number above 0", self.rate)


FINETUNE, SEMI1, SEMI10 = Recipe(), SemiRecipe(), SemiRecipe(fraction=0.1, epochs=30)


AnyRecipe = TypeVar("AnyRecipe", Recipe, SemiRecipe)


def budget(
    recipe: AnyRecipe, *, steps: int | None = None, grid: tuple[int, int] | None = None
) -> AnyRecipe:
    """The recipe with no more steps than these, and fewer points on its grid.

    Args:
        steps: at least 1. grid: how many learning rates and decays, each at least 1: the middles
            of as many even parts of the recipe's own. ``semi`` has no grid, and leaves it.

    Raises:
        ValueError: a value outside its range.

    >>> small = budget(FINETUNE, steps=200, grid=(2, 2))
    >>> small.rates, small.decays, cut(small)
    ((0.000316228, 0.0316228), (1e-05, 0.001), '200 of 20,000 steps, 2 x 2 of 7 x 8')
    """
    if steps is not None:
        recipe = replace(recipe, steps=min(steps, recipe.steps or steps))
    if grid is not None and isinstance(recipe, Recipe):
        check(len(grid) == 2 and min(grid) >= 1, "grid must be 2 numbers of at least 1", grid)
        rates, decays = _middles(recipe.rates, grid[0]), _middles(recipe.decays, grid[1])
        recipe = replace(recipe, rates=rates, decays=decays)
    return recipe


def cut(recipe: Recipe) -> str | None:
    """What a budget cut of the paper's protocol, in a few words; None for nothing.

    >>> cut(FINETUNE), cut(Recipe(steps=1000))
    (None, '1,000 of 20,000 steps')
    """
    said = []
    if recipe.steps < FINETUNE.steps:
        said.append(f"{recipe.steps:,} of {FINETUNE.steps:,} steps")
    points, whole = ((len(r.rates), len(r.decays)) for r in (recipe, FINETUNE))
    if points[0] < whole[0] or points[1] < whole[1]:
        said.append("{} x {} of {} x {}".format(*points, *whole))
    return ", ".join(said) or None


def _middles(values: tuple[float, ...], n: int) -> tuple[float, ...]:
    n = min(n, len(values))
    return tuple(values[(2 * i + 1) * len(values) // (2 * n)] for i in range(n))
