"""Views: kornia pipelines from a batch of images, on its device, to what an objective needs."""

from sslkit.views.base import NORMALIZATIONS, Targeted, View
from sslkit.views.evaluation import EvaluationView
from sslkit.views.simclr import SimCLRViews

__all__ = ["NORMALIZATIONS", "EvaluationView", "SimCLRViews", "Targeted", "View"]
