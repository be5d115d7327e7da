"""Losses: a pure function first, then a thin module that calls it. Imports torch alone."""

from sslkit.losses.nt_xent import NTXentLoss, nt_xent

__all__ = ["NTXentLoss", "nt_xent"]
