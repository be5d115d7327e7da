"""Miners: (embeddings, labels) to the index tuples a metric loss takes. Imports torch alone."""

from sslkit.miners.chosen import Miner
from sslkit.miners.distance_weighted import distance_weighted
from sslkit.miners.pairs import all_pairs
from sslkit.miners.triplets import easy_positive, hard, semi_hard
from sslkit.miners.tuples import Pairs, Triplets

__all__ = [
    "Miner",
    "Pairs",
    "Triplets",
    "all_pairs",
    "distance_weighted",
    "easy_positive",
    "hard",
    "semi_hard",
]
