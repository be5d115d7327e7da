"""Noise injection: Gaussian noise on inputs and hidden layers, smoothing on targets."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslkit.embeddings import check_at_least, check_tensor

KINDS = ("additive", "multiplicative")


class GaussianNoise(nn.Module):
    """x + e or x (1 + e) with e from N(0, std^2), an element; in training alone.

    Additive noise on the inputs is, to second order, Tikhonov regularisation (Bishop 1995,
    "Training with Noise is Equivalent to Tikhonov Regularization"). Multiplicative noise is
    Gaussian dropout (Srivastava et al. 2014, section 10): std = sqrt(p / (1 - p)) has the
    variance of dropout with probability p. Neither moves the mean, so nothing is rescaled.

    A floating-point tensor of any shape becomes another of its shape and dtype; the noise is
    drawn in float32. In eval mode, and with std 0, the very same tensor comes back.

    Args:
        std: standard deviation of e, at least 0; of additive noise in the units of x.
        kind: "additive" or "multiplicative".

    Raises:
        ValueError: a std or kind out of range; in the call, what is no floating-point tensor.

    >>> noise, x = GaussianNoise(0.1), torch.zeros(2, 3)
    >>> noise(x).shape, noise.eval()(x) is x
    (torch.Size([2, 3]), True)
    """

    def __init__(self, std: float, kind: str = "additive") -> None:
        super().__init__()
        check_at_least(0, std=std)
        if kind not in KINDS:
            raise ValueError(f"no kind of noise named {kind!r}; choose from {', '.join(KINDS)}")
        self.std, self.kind = std, kind

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("the input of GaussianNoise", x)
        if not x.is_floating_point():
            raise ValueError(f"the input of GaussianNoise must be floating-point, not {x.dtype}")
        if not self.training or self.std == 0:
            return x
        noise = self.std * torch.randn_like(x, dtype=torch.float32)
        return x + noise.to(x.dtype) if self.kind == "additive" else x * (1 + noise).to(x.dtype)

    def extra_repr(self) -> str:
        return f"std={self.std}, kind={self.kind!r}"


class InjectedNoise:
    """What :func:`inject_noise` returns; ``remove()``, or leaving ``with``, takes the noise off.

    A copy of the model that was made meanwhile keeps its noise.
    """

    def __init__(self, hooks: Sequence[torch.utils.hooks.RemovableHandle]) -> None:
        self._hooks = hooks

    def remove(self) -> None:
        """Take the noise off; a second call does nothing."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> "InjectedNoise":
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def inject_noise(
    model: nn.Module, layers: Sequence[str], std: float, *, kind: str = "additive"
) -> InjectedNoise:
    """Add :class:`GaussianNoise` to what some layers of a model give, through forward hooks.

    A layer's noise is on while that layer is in training mode, so it follows ``model.train()``
    and ``model.eval()``. Weights, submodules and state_dict stay as they are. A layer that is
    named twice, or injected twice, gets noise twice.

    Args:
        model: any module.
        layers: names of submodules, as in ``model.named_modules()``; "" is the model itself.
            Each must give one floating-point tensor, or its call raises ValueError.
        std: standard deviation, at least 0.
        kind: "additive" or "multiplicative".

    Returns:
        A handle with ``remove()``, which is a context manager too.

    Raises:
        ValueError: a layer that is not there, layers that are one string, std or kind out of range.

    >>> model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.ones(2, 3)
    >>> with inject_noise(model, ["0"], std=0.1):
    ...     torch.equal(model(x), model(x)), torch.equal(model.eval()(x), model(x))
    (False, True)
    """
    if isinstance(layers, str):
        raise ValueError(f"layers must be a list of names, not {layers!r}")
    named = dict(model.named_modules())
    for name in layers:
        if name not in named:
            nearest = map(repr, get_close_matches(str(name), named, n=5, cutoff=0))
            raise ValueError(f"no layer named {name!r}; the nearest are {', '.join(nearest)}")
    hook = partial(_after, GaussianNoise(std, kind))  # a partial, unlike a closure, is pickled
    return InjectedNoise([named[name].register_forward_hook(hook) for name in layers])


def _after(noise: GaussianNoise, layer: nn.Module, args: object, output: Tensor) -> Tensor:
    return noise.train(layer.training)(output)


def smooth_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Label smoothing (Szegedy et al. 2016, arXiv:1512.00567): (1 - smoothing) t + smoothing / C.

    Given to ``sslkit.losses.soft_cross_entropy`` they make the loss that its
    ``label_smoothing`` makes; here they are targets, to be mixed or looked at.

    Args:
        labels: class indices in [0, classes), (N,), integers; or probabilities, (N, classes),
            floating-point, whose values are not checked.
        classes: how many classes C, at least 1.
        smoothing: in [0, 1); 0.1 in the paper; 0 only makes one-hot targets of indices.

    Returns:
        Probabilities, (N, classes), float32 (float64 for float64 probabilities).

    Raises:
        ValueError: labels of another shape or dtype or out of range, or a number out of range.

    >>> smooth_targets(torch.tensor([0, 3]), 4, smoothing=0.2)
    tensor([[0.8500, 0.0500, 0.0500, 0.0500],
            [0.0500, 0.0500, 0.0500, 0.8500]])
    """
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes must be a whole number, at least 1, not {classes!r}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be in [0, 1), not {smoothing}")
    targets = _one_hot(labels, classes)
    return (1 - smoothing) * targets + smoothing / classes


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    """Integers (N,) or probabilities (N, classes) to probabilities, in float32 or wider."""
    check_tensor("labels", labels)
    if labels.is_floating_point() and labels.ndim == 2 and labels.shape[1] == classes:
        return labels.to(torch.promote_types(torch.float32, labels.dtype))
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or labels.ndim != 1:
        raise ValueError(
            f"labels must be integers (N,) or floating-point probabilities (N, {classes}), "
            f"not {labels.dtype} of shape {tuple(labels.shape)}"
        )
    labels = labels.long()
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        raise ValueError(f"labels must be in [0, {classes}), not {labels[outside][0].item()}")
    return F.one_hot(labels, classes).float()
