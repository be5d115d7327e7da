"""Evaluation of frozen backbones: features once, then kNN and a linear probe on them."""

from sslkit.evaluation.features import Features, check_layers, extract, extract_layers
from sslkit.evaluation.knn import knn, nearest
from sslkit.evaluation.linear import linear
from sslkit.evaluation.signals import alignment, feature_std, rankme, uniformity
from sslkit.evaluation.suite import PROTOCOLS, evaluate, evaluate_layers, table

__all__ = [
    "PROTOCOLS",
    "Features",
    "alignment",
    "check_layers",
    "evaluate",
    "evaluate_layers",
    "extract",
    "extract_layers",
    "feature_std",
    "knn",
    "linear",
    "nearest",
    "rankme",
    "table",
    "uniformity",
]
