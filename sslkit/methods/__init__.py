"""Methods: one LightningModule a file, each an objective over what its view makes."""

from sslkit.methods.base import Batch, Method
from sslkit.methods.colorization import Colorization
from sslkit.methods.daml import DAML
from sslkit.methods.de_dsp import DEDSP
from sslkit.methods.instance_discrimination import InstanceDiscrimination
from sslkit.methods.jigsaw import Jigsaw
from sslkit.methods.metric_learning import MetricLearning
from sslkit.methods.moco import MoCo
from sslkit.methods.pads import PADS
from sslkit.methods.relative_position import RelativePosition
from sslkit.methods.rotation import Rotation
from sslkit.methods.simclr import SimCLR
from sslkit.methods.supervised import Supervised

__all__ = [
    "DAML",
    "DEDSP",
    "PADS",
    "Batch",
    "Colorization",
    "InstanceDiscrimination",
    "Jigsaw",
    "Method",
    "MetricLearning",
    "MoCo",
    "RelativePosition",
    "Rotation",
    "SimCLR",
    "Supervised",
]
