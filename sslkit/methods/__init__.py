"""Methods: one LightningModule a file, each an objective over what its view makes."""

from sslkit.methods.base import Batch, Method
from sslkit.methods.rotation import Rotation
from sslkit.methods.simclr import SimCLR
from sslkit.methods.supervised import Supervised

__all__ = ["Batch", "Method", "Rotation", "SimCLR", "Supervised"]
