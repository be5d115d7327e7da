"""Miners: (embeddings, labels) to the index tuples a metric loss takes. Imports torch alone."""

from sslkit.miners.tuples import Pairs, Triplets

__all__ = ["Pairs", "Triplets"]
