"""Logistic regression with L2 by a preconditioned L-BFGS that carries over along a path."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Pairs = list[tuple[Tensor, Tensor]]


class State(NamedTuple):
    """A point on the path, and what is known there of the loss without its penalty.

    weight: (C, D + 1), the bias last. loss: a float. gradient: as weight. curvature: (C,), the
    mean of p (1 - p) of each class. pairs: the latest steps and changes of gradient.
    """

    weight: Tensor
    loss: float
    gradient: Tensor
    curvature: Tensor
    pairs: Pairs


class Objective:
    """The mean cross-entropy of features with labels, in blocks of rows.

    Args:
        x: float32 (N, D), about centred. y: int64 (N,), or (N, C) of 1, 0 and -1 (left out).
        classes: C.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int) -> None:
        self.x, self.y, self.classes = x, y, classes
        self.rows = 2048 if x.device.type == "cpu" else max(1, 2**27 // classes)
        # Of part of the rows: it only shapes the steps, not where they lead.
        some = x[:: max(1, len(x) // 20_000)]
        spread, axes = torch.linalg.eigh((some.T @ some / len(some)).double())
        self.spread, self.axes = spread.to(x).clamp_min(0), axes.to(x)
        self.count = (y >= 0).sum(0) if y.ndim == 2 else len(y)  # images, of each class

    def start(self) -> State:
        """At weights of zero."""
        return self.at(self.x.new_zeros(self.classes, self.x.shape[1] + 1))

    def at(self, weight: Tensor, pairs: Pairs | None = None) -> State:
        """The loss and its derivatives."""
        gradient = torch.zeros_like(weight)
        loss = weight.new_zeros((), dtype=torch.float64)
        curvature = weight.new_zeros(self.classes)
        for x, y in zip(self.x.split(self.rows), self.y.split(self.rows), strict=True):
            z = torch.addmm(weight[:, -1], x, weight[:, :-1].T)
            if y.ndim == 2:
                seen = (y >= 0).to(z)
                target = (y == 1).to(z)
                losses = F.binary_cross_entropy_with_logits(z, target, reduction="none")
                loss += (losses * seen / self.count).sum()
                p = z.sigmoid_()
                curvature += (p * (1 - p) * seen).sum(0)
                p = p.sub_(target).mul_(seen)
            else:
                p = F.log_softmax(z, dim=1)
                loss -= p.gather(1, y[:, None]).sum(dtype=torch.float64) / self.count
                p = p.exp_()
                curvature += p.sum(0) - p.square().sum(0)
                p.scatter_add_(1, y[:, None], p.new_full((len(y), 1), -1.0))
            gradient[:, :-1].addmm_(p.T, x)
            gradient[:, -1] += p.sum(0)
        per_row = self.count[:, None] if isinstance(self.count, Tensor) else self.count
        curvature = (curvature / self.count).clamp_min(1e-8)
        return State(weight, float(loss), gradient / per_row, curvature, pairs or [])

    def precondition(self, r: Tensor, curvature: Tensor, l2: float) -> Tensor:
        """Near the inverse Hessian times ``r``: of each class, curvature times covariance + l2."""
        out = torch.empty_like(r)
        out[:, :-1] = (
            r[:, :-1] @ self.axes / (curvature[:, None] * self.spread + l2)
        ) @ self.axes.T
        out[:, -1] = r[:, -1] / curvature
        return out


def minimise(
    objective: Objective,
    state: State,
    l2: float,
    *,
    tolerance: float = 3e-6,
    iterations: int = 1000,
    history: int = 10,
) -> State:
    """The minimiser of the objective + l2 / 2 |W|^2, from a state nearby; the bias is free.

    L-BFGS (Liu and Nocedal 1989) in which the first guess of the inverse Hessian is exact for
    classes of equal probabilities, so that badly scaled and correlated features cost no steps. The
    pairs of steps are kept without the penalty, and so hold at the next l2 too.

    Args:
        tolerance: stop when half the Newton decrement, the estimated distance to the optimum, is
            below this part of the objective.

    Raises:
        ValueError: no optimum after so many iterations.

    >>> x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    >>> objective = Objective(x, y, 2)
    >>> minimise(objective, objective.start(), 0.1).weight[1, 0] > 0
    tensor(True)
    """
    for _ in range(iterations):
        gradient = state.gradient + _penalised(state.weight, l2)
        step = -_inverse_hessian(objective, state, gradient, l2)
        slope = float((gradient * step).sum())
        value = _value(state, l2)
        if not math.isfinite(slope) or not math.isfinite(value):
            raise ValueError(f"logistic regression at l2 = {l2:g} leaves the range of float32")
        if -slope / 2 <= tolerance * value:
            return state
        size = 1.0
        while True:
            new = objective.at(state.weight + size * step)
            rise = _value(new, l2) - value
            if rise <= 1e-4 * size * slope:
                break
            if size < 1e-4:  # the steps are lost in rounding: this is the optimum
                return state
            # The minimum of the parabola through what is known.
            size *= min(0.5, max(0.1, -slope * size / (2 * (rise - slope * size))))
        moved, bent = new.weight - state.weight, new.gradient - state.gradient
        pairs = [*state.pairs, (moved, bent)] if (moved * bent).sum() > 0 else state.pairs
        state = new._replace(pairs=pairs[-history:])
    raise ValueError(f"logistic regression at l2 = {l2:g} has no optimum in {iterations} steps")


def _inverse_hessian(objective: Objective, state: State, gradient: Tensor, l2: float) -> Tensor:
    """L-BFGS's two loops."""
    pairs = [(s, y + _penalised(s, l2)) for s, y in state.pairs]
    r, weights = gradient, []
    for s, y in reversed(pairs):
        weights.append((s * r).sum() / (s * y).sum())
        r = r - weights[-1] * y
    r = objective.precondition(r, state.curvature, l2)
    if pairs:
        s, y = pairs[-1]
        r *= (s * y).sum() / (y * objective.precondition(y, state.curvature, l2)).sum()
    for (s, y), weight in zip(pairs, reversed(weights), strict=True):
        r = r + (weight - (y * r).sum() / (s * y).sum()) * s
    return r


def _penalised(weight: Tensor, l2: float) -> Tensor:
    return F.pad(l2 * weight[:, :-1], (0, 1))


def _value(state: State, l2: float) -> float:
    return state.loss + l2 / 2 * float(state.weight[:, :-1].double().square().sum())
