"""Callbacks: online signals of a representation, guards, progress."""

from sslkit.callbacks.guards import FiniteLoss, SafeInterrupt
from sslkit.callbacks.online import OnlineSignals
from sslkit.callbacks.progress import Progress, Throughput

__all__ = ["FiniteLoss", "OnlineSignals", "Progress", "SafeInterrupt", "Throughput"]
