"""ResNet-9, the network of DAWNBench's CIFAR-10 entries (Page 2018, "How to train your ResNet")."""

from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from sslkit.backbones.base import Backbone


class ResNet9(Backbone):
    """Eight 3x3 convolutions in two residual stages, for 32 px images and small machines.

    Args:
        width: channels after the first convolution; features have 8 times as many. Page's
            network has 64; 16 suits two CPU cores.

    Raises:
        ValueError: width below 1.

    >>> import torch
    >>> ResNet9(width=16).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 128])
    """

    layers = ("stem", "stage1", "stage2", "stage3")

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width}")
        self.width, self.feature_dim = width, 8 * width
        w = width
        self.stem = _conv(3, w)
        self.stage1 = nn.Sequential(_conv(w, 2 * w), nn.MaxPool2d(2), _Residual(2 * w))
        self.stage2 = nn.Sequential(_conv(2 * w, 4 * w), nn.MaxPool2d(2))
        self.stage3 = nn.Sequential(_conv(4 * w, 8 * w), nn.MaxPool2d(2), _Residual(8 * w))

    def feature_map(self, images: Tensor) -> Tensor:
        return self.feature_maps(images)[-1]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        stages = (self.stem, self.stage1, self.stage2, self.stage3)
        return list(accumulate(stages, lambda x, stage: stage(x), initial=images))[1:]

    def init_args(self) -> dict[str, Any]:
        return {"width": self.width}


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)
