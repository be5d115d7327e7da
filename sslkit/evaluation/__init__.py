"""Evaluation of frozen backbones: features once, then the protocols on them, and their metrics."""

from sslkit.evaluation.features import Features, check_layers, extract, extract_layers
from sslkit.evaluation.knn import knn, nearest
from sslkit.evaluation.linear import linear
from sslkit.evaluation.metrics import (
    map_at_r,
    mean_per_class_accuracy,
    nmi,
    pairwise_f1,
    recall_at_k,
    voc_ap11,
)
from sslkit.evaluation.retrieval import retrieval
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
    "map_at_r",
    "mean_per_class_accuracy",
    "nearest",
    "nmi",
    "pairwise_f1",
    "rankme",
    "recall_at_k",
    "retrieval",
    "table",
    "uniformity",
    "voc_ap11",
]
