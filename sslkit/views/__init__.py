"""Views: kornia pipelines from a batch of images, on its device, to what an objective needs."""

from sslkit.views.augment import Augment
from sslkit.views.base import NORMALIZATIONS, Targeted, View
from sslkit.views.colorization import ColorizationView
from sslkit.views.evaluation import EvaluationView
from sslkit.views.jigsaw import JigsawView
from sslkit.views.mixing import CutMix, Mixed, MixUp
from sslkit.views.multicrop import DINOViews, SwAVViews
from sslkit.views.noise import GaussianNoise, inject_noise, smooth_targets
from sslkit.views.relative_position import RelativePositionView
from sslkit.views.rotation import RotationView
from sslkit.views.simclr import (
    AugmentedViews,
    BarlowTwinsViews,
    BYOLViews,
    InstDiscView,
    MoCoV1Views,
    MoCoV2Views,
    SimCLRViews,
)
from sslkit.views.supervised import RandAugmentView, SupervisedView
from sslkit.views.transforms import (
    ColorJitterGrayscale,
    GaussianBlur,
    RandomResizedCropFlip,
    Solarize,
)

__all__ = [
    "NORMALIZATIONS",
    "Augment",
    "AugmentedViews",
    "BYOLViews",
    "BarlowTwinsViews",
    "ColorJitterGrayscale",
    "ColorizationView",
    "CutMix",
    "DINOViews",
    "EvaluationView",
    "GaussianBlur",
    "GaussianNoise",
    "InstDiscView",
    "JigsawView",
    "MixUp",
    "Mixed",
    "MoCoV1Views",
    "MoCoV2Views",
    "RandAugmentView",
    "RandomResizedCropFlip",
    "RelativePositionView",
    "RotationView",
    "SimCLRViews",
    "Solarize",
    "SupervisedView",
    "SwAVViews",
    "Targeted",
    "View",
    "inject_noise",
    "smooth_targets",
]
