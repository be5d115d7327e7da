"""Linear probe: L2-regularised logistic regression on frozen features, over a whole path."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from sslkit.evaluation.checks import check_classes, check_features, metric_of
from sslkit.evaluation.features import Features
from sslkit.evaluation.finetune import stratified
from sslkit.evaluation.logistic import Objective, State, minimise
from sslkit.evaluation.metrics import METRICS

L2 = tuple(float(f"{10 ** (i / 4 - 6):.6g}") for i in range(45))  # 1e-6 to 1e5, four a decade
MOST = 1e15  # squares of more leave float32


class LinearProbe:
    """Logistic regression whose regulariser is chosen on a held-out part of what it is fitted to.

    The linear evaluation of the SimCLR paper (Chen et al. 2020, arXiv:2002.05709, appendix B.8):
    multinomial regression by L-BFGS, L2 chosen among 45 values on validation, then a fit to all.
    The objective is  mean cross-entropy + l2 / 2 |W|^2, the bias free; the paper leaves open
    whether the loss is a mean or a sum. Labels (N, C) of 1, 0 and -1 (left out, as VOC's
    difficult objects) are C independent two-class regressions with one regulariser.

    Args:
        l2: candidates, each above 0; a single one is taken without validation.
        metric: that of the choice and of ``score``: "accuracy", "mean_per_class" or "map11"; by
            default "accuracy", and "map11" for labels (N, C).
        standardize: divide each feature by its deviation first, which the paper does not.
        validation: the part held out, of each class alike.
        seed: of what is held out.
        device: where to fit; by default where the features are.
        progress: whether to draw a progress bar.

    Attributes:
        weight, bias: (C, D) and (C,), for features as they come. l2: the value chosen.
        validation_scores: the score on the held-out part of every candidate, in percent.

    Raises:
        ValueError: an argument out of its range.

    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> probe = LinearProbe().fit(x, (x[:, 0] > 0).long())
    >>> probe.score(x, (x[:, 0] > 0).long()) > 97, probe.predict(torch.tensor([[3.0, 0.0]]))
    (True, tensor([1]))
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        l2: Sequence[float] | float = L2,
        *,
        metric: str | None = None,
        standardize: bool = False,
        validation: float = 0.1,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> None:
        values = (l2,) if isinstance(l2, int | float) else tuple(l2)
        if not values or not all(0 < value < float("inf") for value in values):
            raise ValueError(f"l2 must be one or more numbers above 0, not {l2}")
        if metric is not None and metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
        if not 0 < validation < 1:
            raise ValueError(f"validation must be between 0 and 1, not {validation}")
        self.candidates = tuple(sorted(values, reverse=True))
        self.metric, self.standardize, self.progress = metric, standardize, progress
        self.validation, self.seed, self.device = validation, seed, device
        self.l2 = self.candidates[0]
        self.validation_scores: dict[float, float] = {}

    def fit(self, features: Tensor, labels: Tensor) -> "LinearProbe":
        """Choose the regulariser, then fit to all that is given.

        Args:
            features: floating-point (N, D), finite. labels: int64 (N,) from 0 on, each class up
                to the highest with a row; or (N, C), each column with a 1 and a 0.

        Raises:
            ValueError: fewer than 10 rows or 2 classes, a class without a row, or labels or
                features out of their ranges.
        """
        check_features(features, labels)
        classes = check_classes(labels)
        if len(labels) < 10:
            raise ValueError(f"a linear probe needs at least 10 rows to fit, not {len(labels)}")
        if (most := float(features.abs().max())) > MOST:
            raise ValueError(f"features must be within {MOST:g} of 0 to fit, but one is {most:g}")
        self._score = METRICS[metric_of(self.metric, labels)]
        self.l2, self.validation_scores = self.candidates[0], {}
        x = features.detach().to(self.device or features.device, torch.float32)
        y = labels.to(x.device)
        mean, scale = x.mean(0), torch.ones_like(x[0])
        if self.standardize:
            scale = x.std(0)
            scale = torch.where(scale > 1e-6 * mean.abs().clamp(min=1), scale, 1)
        x = (x - mean).div_(scale)
        state = self._choose(x, y, classes) if len(self.candidates) > 1 else None
        objective = Objective(x, y, classes)
        state = objective.at(state.weight) if state else objective.start()
        state = minimise(objective, state, self.l2)
        self.weight = state.weight[:, :-1] / scale
        self.bias = state.weight[:, -1] - self.weight @ mean
        self.several = y.ndim == 2
        return self

    def _choose(self, x: Tensor, y: Tensor, classes: int) -> State:
        """Go down the path on what is kept; the state where the held-out score was best."""
        kept, held = (rows.to(x.device) for rows in held_out(y.cpu(), self.validation, self.seed))
        if not len(held):
            raise ValueError("no class has 2 rows, so that none can be held out to choose l2 by")
        objective = Objective(x[kept], y[kept], classes)
        x, y = x[held], y[held]
        met = (y == 1).any(0) if y.ndim == 2 else slice(None)  # a class of one image is kept
        y = y[:, met] if y.ndim == 2 else y
        state = best = objective.start()
        for value in tqdm(
            self.candidates, "linear probe", delay=2, leave=False, disable=not self.progress or None
        ):
            state = minimise(objective, state, value)
            found = self._score(_logits(state.weight, x)[:, met], y)
            if found > max(self.validation_scores.values(), default=-1.0):
                best, self.l2 = state, value
            self.validation_scores[value] = found
        return best

    def decision_function(self, features: Tensor) -> Tensor:
        """The logits, (N, C), on the device of ``features``.

        Raises:
            ValueError: features of another width, or not finite.
        """
        if not hasattr(self, "weight"):
            raise ValueError("this probe is not fitted: call fit first")
        check_features(features, width=self.weight.shape[1])
        weight, bias = self.weight.to(features.device), self.bias.to(features.device)
        return F.linear(features.detach().float(), weight, bias)

    def predict(self, features: Tensor) -> Tensor:
        """The likeliest class of each row, int64 (N,); of a multi-label probe, bool (N, C)."""
        logits = self.decision_function(features)
        return logits > 0 if self.several else logits.argmax(1)

    def score(self, features: Tensor, labels: Tensor) -> float:
        """The metric on features with these labels, in percent.

        Raises:
            ValueError: a label that was not fitted, or as ``decision_function``.
        """
        logits = self.decision_function(features)
        check_features(features, labels)
        check_classes(labels, self.weight.shape[0])
        return self._score(logits, labels.to(logits.device))


def linear(
    train: Features, test: Features, *, metric: str | None = None, **options: Any
) -> dict[str, Any]:
    """The score of a :class:`LinearProbe` that is fitted to train; test is read once.

    Args:
        metric, options: as of :class:`LinearProbe`.

    Returns:
        "metric" and, under its name, the score on test; "validation", the score on the held-out
        part; and the "l2" that was chosen there. Scores in percent.

    Raises:
        ValueError: a class of test without a training image, or as :class:`LinearProbe`.

    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> features = Features(x, (x[:, 0] > 0).long())
    >>> linear(features, features)["accuracy"] > 97
    True
    """
    metric = metric_of(metric, train.labels)
    check_classes(test.labels, train.labels)
    probe = LinearProbe(metric=metric, **options).fit(*train)
    scores = {"metric": metric, metric: probe.score(*test)}
    if probe.validation_scores:
        scores["validation"] = probe.validation_scores[probe.l2]
    return {**scores, "l2": probe.l2}


def held_out(labels: Tensor, part: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Row numbers in two: what is kept, and ``part`` of each class, held out; both in order.

    Of a class of two rows or more, one at least is held out; one is always kept. Of labels (N, C)
    the rarest class is served first, as an image has several (Sechidis et al. 2011).

    >>> kept, held = held_out(torch.tensor([0] * 20 + [1] * 3 + [2]), 0.1)
    >>> len(kept), len(held)
    (21, 3)
    """
    if labels.ndim == 2:
        held = stratified(labels, labels.shape[1], part, seed=seed, spare=True)
        return (~held).nonzero()[:, 0], held.nonzero()[:, 0]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]  # class by class
    counts = labels.bincount()
    wanted = (part * counts).round().long().clamp(min=1).minimum(counts - 1)
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[order[place < wanted[labels[order]]]] = True
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def _logits(weight: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, weight[:, :-1], weight[:, -1])
