"""What losses and miners share: checks of their arguments, unit vectors, distances."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_AS_IT_IS = nullcontext()


def checked(**tensors: Tensor) -> tuple[Tensor, ...]:
    """Embeddings of one shape (N, D), in float32 or wider.

    Raises:
        ValueError: naming the argument that is no floating-point matrix or has another shape.

    >>> [z.dtype for z in checked(z0=torch.ones(2, 3).bfloat16(), z1=torch.ones(2, 3))]
    [torch.float32, torch.float32]
    """
    for name, tensor in tensors.items():
        check_tensor(name, tensor)
    first, shape = next((name, tensor.shape) for name, tensor in tensors.items())
    dtype = torch.float32
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            raise ValueError(f"{name} must be (N, D), not {tuple(tensor.shape)}")
        if not tensor.shape[1]:
            raise ValueError(f"{name} must have a dimension, not {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be of a floating-point dtype, not {tensor.dtype}")
        if tensor.shape != shape:
            raise ValueError(
                f"{name} must have the shape of {first}, {tuple(shape)}, not {tuple(tensor.shape)}"
            )
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors.values())


def check_temperature(temperature: float | Tensor, like: Tensor) -> float | Tensor:
    """A finite temperature above 0; one in a tensor as a scalar of the dtype of ``like``.

    On a CPU a tensor's value is checked too; elsewhere, and when compiled, reading it would wait.

    Raises:
        ValueError: a temperature not above 0, or a tensor of more than one.

    >>> check_temperature(torch.tensor([0.5]), torch.ones(2))
    tensor(0.5000)
    """
    if not isinstance(temperature, Tensor):
        check_above(0, temperature=temperature)
        return temperature
    if temperature.numel() != 1:
        raise ValueError(f"temperature must be one number, not {tuple(temperature.shape)}")
    if temperature.device.type == "cpu" and not torch.compiler.is_compiling():
        check_above(0, temperature=float(temperature.detach()))
    return temperature.reshape(()).to(like.dtype)


def check_tensor(name: str, value: object) -> None:
    """Raise ValueError unless a value is a tensor.

    >>> check_tensor("labels", [0, 1])
    Traceback (most recent call last):
    ...
    ValueError: labels must be a tensor, not list
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, not {type(value).__name__}")


def check_labels(labels: Tensor, n: int) -> None:
    """Raise ValueError unless labels are n integers.

    >>> check_labels(torch.zeros(3), 3)
    Traceback (most recent call last):
    ...
    ValueError: labels must be 3 integers, one a row, not float32 of shape (3,)
    """
    check_tensor("labels", labels)
    whole = not (labels.is_floating_point() or labels.is_complex()) and labels.dtype != torch.bool
    if labels.shape != (n,) or not whole:
        dtype = str(labels.dtype).removeprefix("torch.")
        raise ValueError(
            f"labels must be {n} integers, one a row, not {dtype} of shape {tuple(labels.shape)}"
        )


def check_above(least: float, **given: float | Tensor) -> None:
    """Raise ValueError unless numbers are finite and above ``least``.

    >>> check_above(0, temperature=-1.0)
    Traceback (most recent call last):
    ...
    ValueError: temperature must be a finite number above 0, not -1.0
    """
    for name, number in given.items():
        if not least < _number(number) < math.inf:
            raise ValueError(f"{name} must be a finite number above {least}, not {_shown(number)}")


def check_at_least(least: float, **given: float) -> None:
    """Raise ValueError unless numbers are finite and at least ``least``.

    >>> check_at_least(0, weight=-1.0)
    Traceback (most recent call last):
    ...
    ValueError: weight must be a finite number, at least 0, not -1.0
    """
    for name, number in given.items():
        if not least <= _number(number) < math.inf:
            raise ValueError(
                f"{name} must be a finite number, at least {least}, not {_shown(number)}"
            )


def _shown(value: object) -> str:
    return repr(value.tolist() if isinstance(value, Tensor) else value)


def _number(value: object) -> float:
    """A number's value; NaN, which no range holds, for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.detach())
    return float(value) if isinstance(value, int | float) else math.nan


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the tensor's device: products of losses stay exact."""
    device = tensor.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else _AS_IT_IS


def unit(z: Tensor) -> Tensor:
    """Rows of (N, D) at length 1.

    A zero row stays zero, and has the gradient of a row of length 1, so that it can leave zero.
    So does a row whose squared length is 0 in its dtype (up to about 1e-23 in float32). A row
    that is not finite, or whose squared length is not (from about 1e19), becomes NaN.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return z / length_of(z)


def length_of(z: Tensor) -> Tensor:
    """What :func:`unit` divides the rows of (N, D) by, (N, 1)."""
    square = (z * z).sum(1, keepdim=True)
    length = (square + square.logical_not()).sqrt()  # 0 becomes 1
    return length + (length - length)  # infinity becomes NaN


def squared_distances(z: Tensor) -> Tensor:
    """Squared Euclidean distances between the rows of (N, D), (N, N); the diagonal is 0.

    >>> squared_distances(torch.tensor([[0.0], [3.0]]))
    tensor([[0., 9.],
            [9., 0.]])
    """
    z = z - z.mean(0).detach()  # far from 0 the differences below would lose their digits
    with full_precision(z):
        gram = z @ z.T
    rows = torch.arange(len(z), device=z.device)
    square = gram[rows, rows]  # gram.diagonal() compiles to a wrong gradient (torch 2.14, CPU)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    return (square[:, None] + square - 2 * gram).clamp_min(0).masked_fill(itself, 0)


def distances(z: Tensor) -> Tensor:
    """Euclidean distances between the rows of (N, D), (N, N); the gradient at distance 0 is 0.

    >>> distances(torch.tensor([[0.0], [3.0]]))
    tensor([[0., 3.],
            [3., 0.]])
    """
    square = squared_distances(z)
    zero = square == 0
    return square.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
