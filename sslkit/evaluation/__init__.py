"""Evaluation of frozen backbones: features once, then the protocols on them, and their metrics."""

from sslkit.evaluation.features import Features, check_layers, extract, extract_layers
from sslkit.evaluation.knn import KNN, knn, nearest
from sslkit.evaluation.linear import LinearProbe, linear
from sslkit.evaluation.metrics import (
    map_at_r,
    mean_per_class_accuracy,
    nmi,
    pairwise_f1,
    recall_at_k,
    voc_ap11,
)
from sslkit.evaluation.protocols import PROTOCOLS, Protocol, protocols_of
from sslkit.evaluation.retrieval import retrieval
from sslkit.evaluation.signals import alignment, feature_std, rankme, uniformity
from sslkit.evaluation.suite import absent, evaluate, evaluate_layers
from sslkit.evaluation.transfer import TransferTable, transfer_table

__all__ = [
    "KNN",
    "PROTOCOLS",
    "Features",
    "LinearProbe",
    "Protocol",
    "TransferTable",
    "absent",
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
    "protocols_of",
    "rankme",
    "recall_at_k",
    "retrieval",
    "transfer_table",
    "uniformity",
    "voc_ap11",
]
