"""Callbacks: online signals of a representation, guards, progress, profile."""

from sslkit.callbacks.compiled import CompiledBackbone
from sslkit.callbacks.guards import FiniteLoss, SafeInterrupt
from sslkit.callbacks.online import OnlineSignals
from sslkit.callbacks.profile import StepProfile
from sslkit.callbacks.progress import Progress, Throughput
from sslkit.callbacks.progressive import ProgressiveResizing

__all__ = [
    "CompiledBackbone",
    "FiniteLoss",
    "OnlineSignals",
    "Progress",
    "ProgressiveResizing",
    "SafeInterrupt",
    "StepProfile",
    "Throughput",
]
