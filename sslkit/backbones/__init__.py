"""Backbones: images (N, C, H, W) to features (N, D), and to a feature map (N, D, h, w)."""

from sslkit.backbones.base import Backbone, build, describe, title_of
from sslkit.backbones.embedder import Embedder
from sslkit.backbones.nin import NIN
from sslkit.backbones.resnet import ResNet
from sslkit.backbones.resnet9 import ResNet9
from sslkit.backbones.timm import Timm

__all__ = [
    "NIN",
    "Backbone",
    "Embedder",
    "ResNet",
    "ResNet9",
    "Timm",
    "build",
    "describe",
    "title_of",
]
