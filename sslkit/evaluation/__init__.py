"""Evaluation of frozen backbones: features once, then kNN and a linear probe on them."""

from sslkit.evaluation.features import Features, extract
from sslkit.evaluation.knn import knn, nearest
from sslkit.evaluation.linear import linear
from sslkit.evaluation.signals import alignment, feature_std, rankme, uniformity
from sslkit.evaluation.suite import PROTOCOLS, evaluate, table

__all__ = [
    "PROTOCOLS",
    "Features",
    "alignment",
    "evaluate",
    "extract",
    "feature_std",
    "knn",
    "linear",
    "nearest",
    "rankme",
    "table",
    "uniformity",
]
