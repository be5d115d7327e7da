"""Network in Network (Lin et al. 2014, arXiv:1312.4400), as RotNet has it on CIFAR-10."""

from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from sslkit.backbones.base import Backbone


class NIN(Backbone):
    """The Network in Network of RotNet (Gidaris et al. 2018, arXiv:1803.07728, section 4.1).

    Blocks of three convolutions, each with BatchNorm and ReLU: one of 5x5 (3x3 from the third
    block on), then two of 1x1; the first two blocks end in pooling that halves the sides. The
    paper trains 3, 4 and 5 blocks and takes the features of the second: ``--layer block2``.

    Args:
        blocks: 2 or more.

    Raises:
        ValueError: fewer than 2 blocks.

    >>> import torch
    >>> nin = NIN(4).eval()
    >>> nin(torch.zeros(2, 3, 32, 32)).shape, nin.feature_maps(torch.zeros(2, 3, 32, 32))[1].shape
    (torch.Size([2, 192]), torch.Size([2, 192, 8, 8]))
    """

    feature_dim = 192

    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        if not isinstance(blocks, int) or blocks < 2:
            raise ValueError(f"blocks must be 2 or more, not {blocks!r}")
        self.blocks = blocks
        self.layers = tuple(f"block{i + 1}" for i in range(blocks))
        self.block1 = _block(3, (192, 160, 96), 5, nn.MaxPool2d(3, 2, 1))
        self.block2 = _block(96, (192, 192, 192), 5, nn.AvgPool2d(3, 2, 1))
        for name in self.layers[2:]:
            self.add_module(name, _block(192, (192, 192, 192), 3, nn.Identity()))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, images: Tensor) -> Tensor:
        return self.feature_maps(images)[-1]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        blocks = self.children()
        return list(accumulate(blocks, lambda x, block: block(x), initial=images))[1:]

    def init_args(self) -> dict[str, Any]:
        return {"blocks": self.blocks}


def _block(inputs: int, widths: tuple[int, int, int], kernel: int, pool: nn.Module) -> nn.Module:
    layers: list[nn.Module] = []
    for outputs, side in zip(widths, (kernel, 1, 1), strict=True):
        conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        inputs = outputs
    return nn.Sequential(*layers, pool)
