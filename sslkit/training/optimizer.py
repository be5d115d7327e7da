"""The optimiser of a run and its learning-rate schedule, as plain options."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from unittest.mock import patch

import torch
from timm.optim import Lars, Muon, muon
from torch import nn

NAMES = ("sgd", "adamw", "lars", "muon")
SCALINGS = ("linear", "sqrt", "none")
SCHEDULES = ("cosine", "linear")


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """SGD, AdamW, LARS or Muon, with linear warm-up and a decay to 0, one value a step.

    Biases and the parameters of normalisation layers are left out of weight decay, of LARS's
    adaptation (Chen et al. 2020; You et al. 2017, arXiv:1708.03888) and of Muon's
    orthogonalisation (Jordan 2024, kellerjordan.github.io/posts/muon), where NAdamW steps instead
    (betas 0.9 and 0.95); Muon's updates are scaled to the size of AdamW's (Liu et al. 2025,
    arXiv:2502.16982), so that both take the same lr. LARS and Muon are timm's.

    Args:
        name: ``sgd`` (Nesterov), ``adamw``, ``lars`` or ``muon``.
        lr: peak learning rate, before scaling.
        lr_scaling: ``linear`` multiplies lr by batch / 256 (Goyal et al. 2017), ``sqrt`` by
            sqrt(batch) (SimCLR, appendix B.1, where lr is 0.075), ``none`` takes it as it is.
            batch counts all processes and accumulated steps.
        weight_decay: at least 0.
        momentum: of SGD, LARS and Muon (Nesterov); beta1 of AdamW.
        warmup_epochs: length of the linear warm-up; may be a fraction.
        schedule: ``cosine`` or ``linear`` decay after the warm-up.

    Raises:
        ValueError: a value outside its range.

    >>> Optimizer(lr=0.075, lr_scaling="sqrt").scaled_lr(4096)
    4.8
    """

    name: Literal["sgd", "adamw", "lars", "muon"] = "lars"
    lr: float = 0.3
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    weight_decay: float = 1e-6
    momentum: float = 0.9
    warmup_epochs: float = 10
    schedule: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"no optimizer named {self.name!r}; choose from {', '.join(NAMES)}")
        if self.lr_scaling not in SCALINGS:
            raise ValueError(
                f"no lr_scaling named {self.lr_scaling!r}; choose from {', '.join(SCALINGS)}"
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"no schedule named {self.schedule!r}; choose from {', '.join(SCHEDULES)}"
            )
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be a finite number above 0, not {self.lr}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")
        for key in ("weight_decay", "warmup_epochs"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ValueError(f"{key} must be at least 0, not {getattr(self, key)}")

    def scaled_lr(self, batch_size: int) -> float:
        """The peak learning rate at a batch of ``batch_size`` images a step."""
        factor = {"linear": batch_size / 256, "sqrt": math.sqrt(batch_size), "none": 1.0}
        return self.lr * factor[self.lr_scaling]

    def build(
        self, module: nn.Module, batch_size: int, rates: Mapping[nn.Module, float] | None = None
    ) -> torch.optim.Optimizer:
        """The optimiser over the trainable parameters of ``module``.

        Args:
            batch_size: images a step, of all processes.
            rates: parts of the module, and what their learning rate is multiplied by.
        """
        lr = self.scaled_lr(batch_size)
        groups = decay_groups(module, self.weight_decay)
        if self.name == "muon":
            groups[1]["use_fallback"] = True
        if self.name == "lars":
            groups[0]["always_adapt"] = True  # timm's Lars adapts only where there is decay
        if rates:
            groups = _at_their_rates(groups, lr, rates)
        if self.name == "adamw":
            return torch.optim.AdamW(groups, lr, betas=(self.momentum, 0.999))
        if self.name == "sgd":
            return torch.optim.SGD(groups, lr, self.momentum, nesterov=self.momentum > 0)
        if self.name == "muon":
            on_cpu = all(p.device.type == "cpu" for p in module.parameters())
            kind = Float32Muon if on_cpu else Muon
            return kind(groups, lr, momentum=self.momentum, nesterov=True)
        return Lars(groups, lr, self.momentum)


class Float32Muon(Muon):
    """timm's Muon, orthogonalising in float32: many processors emulate bfloat16."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        exact = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)
        with patch.object(muon, "zeropower_via_newtonschulz", exact):
            return super().step(closure)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and kernels with decay; biases, norms and scalars without.

    A module's ``no_weight_decay()`` names more that go without, as timm's transformers have it:
    class token, position embedding.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> [len(group["params"]) for group in decay_groups(net, 0.1)]
    [1, 3]
    """
    spared = {
        f"{path}.{name}" if path else name
        for path, child in module.named_modules()
        if callable(named := getattr(child, "no_weight_decay", None))
        for name in named()
    }
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups[parameter.ndim > 1 and name not in spared].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def _at_their_rates(
    groups: list[dict[str, Any]], lr: float, rates: Mapping[nn.Module, float]
) -> list[dict[str, Any]]:
    """The groups cut by learning rate, the optimiser's own first."""
    own = {id(p): rate for part, rate in rates.items() for p in part.parameters()}
    cut = []
    for rate in dict.fromkeys([1.0, *rates.values()]):
        for group in groups:
            params = [p for p in group["params"] if own.get(id(p), 1.0) == rate]
            cut.append({**group, "params": params, "lr": lr * rate})
    return cut


def warmup_decay(step: int, *, warmup: int, total: int, schedule: str = "cosine") -> float:
    """The share of the peak learning rate at a step: linear up, then down to 0.

    >>> [warmup_decay(s, warmup=2, total=4) for s in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    >>> [warmup_decay(s, warmup=0, total=4, schedule="linear") for s in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
