"""Methods: one LightningModule a file, each an objective over what its view makes."""

from sslkit.methods.base import Batch, Method
from sslkit.methods.simclr import SimCLR

__all__ = ["Batch", "Method", "SimCLR"]
