"""Losses: a pure function first, then a thin module that calls it. Imports torch alone."""

from sslkit.losses.angular import AngularLoss, NPairAngularLoss, angular, n_pair_angular
from sslkit.losses.barlow_twins import BarlowTwinsLoss, barlow_twins
from sslkit.losses.contrastive import ContrastiveLoss, contrastive
from sslkit.losses.ddml import DDMLLoss, ddml
from sslkit.losses.decoupled import DecoupledNTXentLoss, decoupled_nt_xent
from sslkit.losses.facility_location import FacilityLocationLoss, facility_location
from sslkit.losses.hard_negative import HardNTXentLoss, hard_nt_xent
from sslkit.losses.info_nce import InfoNCELoss, info_nce
from sslkit.losses.lifted import LiftedStructureLoss, lifted_structure
from sslkit.losses.margin_triplet import MarginTripletLoss, margin_triplet
from sslkit.losses.multi_view import nt_xent_multi_view
from sslkit.losses.n_pair import NPairLoss, n_pair
from sslkit.losses.nce import nce
from sslkit.losses.negative_cosine import NegativeCosineLoss, negative_cosine
from sslkit.losses.nt_logistic import NTLogisticLoss, nt_logistic
from sslkit.losses.nt_xent import NTXentLoss, nt_xent
from sslkit.losses.soft_cross_entropy import SoftCrossEntropyLoss, soft_cross_entropy
from sslkit.losses.sup_con import SupConLoss, sup_con
from sslkit.losses.triplet import TripletMarginLoss, triplet_margin
from sslkit.losses.vicreg import VICRegLoss, vicreg

__all__ = [
    "AngularLoss",
    "BarlowTwinsLoss",
    "ContrastiveLoss",
    "DDMLLoss",
    "DecoupledNTXentLoss",
    "FacilityLocationLoss",
    "HardNTXentLoss",
    "InfoNCELoss",
    "LiftedStructureLoss",
    "MarginTripletLoss",
    "NPairAngularLoss",
    "NPairLoss",
    "NTLogisticLoss",
    "NTXentLoss",
    "NegativeCosineLoss",
    "SoftCrossEntropyLoss",
    "SupConLoss",
    "TripletMarginLoss",
    "VICRegLoss",
    "angular",
    "barlow_twins",
    "contrastive",
    "ddml",
    "decoupled_nt_xent",
    "facility_location",
    "hard_nt_xent",
    "info_nce",
    "lifted_structure",
    "margin_triplet",
    "n_pair",
    "n_pair_angular",
    "nce",
    "negative_cosine",
    "nt_logistic",
    "nt_xent",
    "nt_xent_multi_view",
    "soft_cross_entropy",
    "sup_con",
    "triplet_margin",
    "vicreg",
]
