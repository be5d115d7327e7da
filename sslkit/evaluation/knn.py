"""Weighted k-nearest-neighbour classification (Wu et al. 2018, arXiv:1805.01978)."""

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
    a k above the number of training features means all of them.

    Args:
        train: the bank. test: the queries. ks: the first gives "accuracy", each gives
            "accuracy_k<k>".

    Returns:
        Accuracies in percent, and the temperature.

    >>> features = Features(torch.eye(3), torch.arange(3))
    >>> knn(features, features, ks=(1,))
    {'accuracy': 100.0, 'accuracy_k1': 100.0, 'temperature': 0.07}
    """
    depth = min(max(ks), len(train.features))
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
    return {"accuracy": scores[f"accuracy_k{ks[0]}"], **scores, "temperature": temperature}


def _percent(correct: Tensor) -> float:
    return 100 * correct.double().mean().item()
