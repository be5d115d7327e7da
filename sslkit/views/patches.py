"""Patches cut out of images, each at a place of its own, as pretext tasks on context need them."""

import torch
from torch import Tensor


def check_pixels(least: int, **values: int) -> None:
    """Refuse numbers of pixels that are not whole or are below the least."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of {least} or more, not {value!r}")


def random_place(images: Tensor, side: int, n: int, what: str) -> tuple[Tensor, Tensor]:
    """Where n squares lie, each anywhere inside an image.

    Args:
        images: (N, C, H, W).
        side: of the squares, in pixels.
        n: how many.
        what: the squares in words, for the error.

    Returns:
        Top rows and left columns, each (n,), on the processor.

    Raises:
        ValueError: images that are smaller than the square.

    >>> top, left = random_place(torch.zeros(2, 3, 8, 9), 8, 5, "squares")
    >>> top.tolist(), left.shape
    ([0, 0, 0, 0, 0], torch.Size([5]))
    """
    height, width = images.shape[-2:]
    if min(height, width) < side:
        raise ValueError(
            f"images of {height} x {width} pixels are too small: {what} need at least "
            f"{side} x {side}"
        )
    return torch.randint(height - side + 1, (n,)), torch.randint(width - side + 1, (n,))


def cut(images: Tensor, index: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Squares of images, in one indexing: (N, C, H, W) to (M, C, size, size).

    Args:
        images: (N, C, H, W) of any kind.
        index: (M,), the image that each is cut from.
        top: (M, C) first rows, or (M, 1) where all channels share theirs.
        left: first columns, likewise.
        size: of a side, in pixels.

    >>> image = torch.arange(12).view(1, 1, 3, 4)
    >>> cut(image, torch.tensor([0]), torch.tensor([[1]]), torch.tensor([[2]]), 2)
    tensor([[[[ 6,  7],
              [10, 11]]]])
    """
    index, top, left = (t.to(images.device, non_blocking=True) for t in (index, top, left))
    grid = torch.arange(size, device=images.device)
    channel = torch.arange(images.shape[1], device=images.device)[:, None, None]
    rows, columns = top[..., None, None] + grid[:, None], left[..., None, None] + grid
    return images[index[:, None, None, None], channel, rows, columns]
