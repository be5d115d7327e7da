"""torchvision's ResNets (He et al. 2016, arXiv:1512.03385), with a stem for 32 px too."""

from typing import Any, Literal

import torchvision
from torch import Tensor, nn

from sslkit.backbones.base import Backbone

NAMES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
)


class ResNet(Backbone):
    """A torchvision ResNet without its classifier; parameter names are torchvision's.

    Args:
        name: one of torchvision's, such as ``resnet18`` or ``resnet50``.
        stem: ``imagenet`` is the 7x7 stride-2 convolution and max-pool; ``cifar`` a 3x3
            stride-1 convolution and no pool (SimCLR, appendix B.9).

    Raises:
        ValueError: a name or stem that is not there.

    >>> import torch
    >>> resnet = ResNet("resnet18", stem="cifar").eval()
    >>> resnet(torch.zeros(2, 3, 32, 32)).shape, resnet.feature_map(torch.zeros(2, 3, 32, 32)).shape
    (torch.Size([2, 512]), torch.Size([2, 512, 4, 4]))
    """

    layers = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self, name: str = "resnet18", *, stem: Literal["imagenet", "cifar"] = "imagenet"
    ) -> None:
        super().__init__()
        if name not in NAMES:
            raise ValueError(f"no ResNet named {name!r}; choose from {', '.join(NAMES)}")
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem must be 'imagenet' or 'cifar', not {stem!r}")
        self.name, self.stem = name, stem
        net = getattr(torchvision.models, name)(weights=None)
        if stem == "cifar":
            net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
            net.maxpool = nn.Identity()
        self.feature_dim = net.fc.in_features
        for child, module in net.named_children():
            if child not in ("avgpool", "fc"):
                self.add_module(child, module)

    def feature_map(self, images: Tensor) -> Tensor:
        return self.feature_maps(images)[-1]

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        maps = []
        for name, module in self.named_children():
            images = module(images)
            if name in self.layers:
                maps.append(images)
        return maps

    def init_args(self) -> dict[str, Any]:
        return {"name": self.name, "stem": self.stem}
