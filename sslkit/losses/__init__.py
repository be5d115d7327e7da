"""Losses: a pure function first, then a thin module that calls it. Imports torch alone."""

from sslkit.losses.decoupled import DecoupledNTXentLoss, decoupled_nt_xent
from sslkit.losses.hard_negative import HardNTXentLoss, hard_nt_xent
from sslkit.losses.info_nce import InfoNCELoss, info_nce
from sslkit.losses.multi_view import nt_xent_multi_view
from sslkit.losses.nt_xent import NTXentLoss, nt_xent
from sslkit.losses.sup_con import SupConLoss, sup_con

__all__ = [
    "DecoupledNTXentLoss",
    "HardNTXentLoss",
    "InfoNCELoss",
    "NTXentLoss",
    "SupConLoss",
    "decoupled_nt_xent",
    "hard_nt_xent",
    "info_nce",
    "nt_xent",
    "nt_xent_multi_view",
    "sup_con",
]
