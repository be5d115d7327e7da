"""Weighted k-nearest-neighbour classification (Wu et al. 2018, arXiv:1805.01978)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslkit.evaluation.features import Features


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine similarities and rows of the k nearest in ``bank``: exact, by faiss.

    Args:
        queries: (M, D). bank: (N, D). k: 1 to N.

    Returns:
        Similarities, float32 (M, k), falling; rows of ``bank``, int64 (M, k).

    Raises:
        ValueError: a k out of its range.

    >>> nearest(torch.tensor([[1.0, 0.1]]), torch.eye(2), 1)[1]
    tensor([[0]])
    """
    import faiss

    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be between 1 and the {len(bank)} neighbours there are, not {k}")
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(F.normalize(bank.float()).contiguous().numpy())
    similarity, rows = index.search(F.normalize(queries.float()).contiguous().numpy(), k)
    return torch.from_numpy(similarity), torch.from_numpy(rows)


def knn(
    train: Features, test: Features, *, ks: tuple[int, ...] = (200, 20), temperature: float = 0.07
) -> dict[str, float]:
    """Accuracy of the vote of the k nearest training features, weight exp(cosine / temperature).

    k and temperature are fixed, not tuned (Wu et al.: 200 and 0.07). One search serves every k;
    a k above the number of training features is lowered to it, and reported so.

    Args:
        train: the bank. test: the queries. ks: each at least 1; the first gives "accuracy", each
            gives "accuracy_k<k>". temperature: above 0.

    Returns:
        Accuracies in percent, the first k and the temperature.

    Raises:
        ValueError: a k or a temperature out of its range, or a label below 0.

    >>> features = Features(torch.eye(3), torch.arange(3))
    >>> knn(features, features, ks=(1,))
    {'accuracy': 100.0, 'accuracy_k1': 100.0, 'k': 1, 'temperature': 0.07}
    """
    if not ks or min(ks) < 1 or not 0 < temperature < math.inf:
        raise ValueError(
            f"kNN takes ks of at least 1 and a temperature above 0, not {ks} and {temperature}"
        )
    if min(train.labels.min(), test.labels.min()) < 0:
        raise ValueError("kNN needs labels, but some are -1, which stands for none")
    ks = tuple(min(k, len(train.features)) for k in ks)
    depth = max(ks)
    similarity, rows = nearest(test.features, train.features, depth)
    # Relative to the nearest, so that no weight overflows.
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    neighbours = train.labels[rows]  # (M, k)
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    scores = {}
    for k in ks:
        votes = torch.zeros(len(rows), classes)
        votes.scatter_add_(1, neighbours[:, :k], weight[:, :k])
        scores[f"accuracy_k{k}"] = _percent(votes.argmax(1) == test.labels)
    first = scores[f"accuracy_k{ks[0]}"]
    return {"accuracy": first, **scores, "k": ks[0], "temperature": temperature}


def _percent(correct: Tensor) -> float:
    return 100 * int(correct.sum()) / len(correct)
