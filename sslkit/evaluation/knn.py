"""Weighted k-nearest-neighbour classification (Wu et al. 2018, arXiv:1805.01978)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslkit.evaluation.checks import check_classes, check_features, metric_of
from sslkit.evaluation.features import Features
from sslkit.evaluation.metrics import METRICS

BLOCK = 4096  # queries whose neighbours are held at a time


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
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be between 1 and the {len(bank)} neighbours there are, not {k}")
    similarity, rows = _index(bank).search(_unit(queries), k)
    return torch.from_numpy(similarity), torch.from_numpy(rows)


class KNN:
    """The vote of the k nearest by cosine, weight exp(cosine / temperature): exact, by faiss.

    Args:
        k: neighbours that vote, 1 to the number fitted; Wu et al.: 200.
        temperature: above 0; Wu et al.: 0.07.
        metric: that of ``score``: "accuracy", "mean_per_class" or "map11"; by default "accuracy",
            and "map11" for labels (N, C).

    Raises:
        ValueError: an argument out of its range.

    >>> knn = KNN(k=1).fit(torch.eye(3), torch.arange(3))
    >>> knn.predict(torch.tensor([[0.1, 2.0, 0.3]])), knn.score(torch.eye(3), torch.arange(3))
    (tensor([1]), 100.0)
    """

    def __init__(
        self, k: int = 200, *, temperature: float = 0.07, metric: str | None = None
    ) -> None:
        if k < 1 or not 0 < temperature < math.inf:
            raise ValueError(
                f"kNN takes a k of at least 1 and a temperature above 0, not {k} and {temperature}"
            )
        if metric is not None and metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
        self.k, self.temperature, self.metric = k, temperature, metric

    def fit(self, features: Tensor, labels: Tensor) -> "KNN":
        """Keep the bank.

        Args:
            features: floating-point (N, D), finite, no row of zeros; N at least k. labels: int64
                (N,) from 0 on; or (N, C), of which a 1 votes.

        Raises:
            ValueError: features or labels that are not so.
        """
        check_features(features, labels, cosine=True)
        self.classes = check_classes(labels)
        if self.k > len(features):
            raise ValueError(f"k = {self.k} is above the {len(features)} features there are")
        self.width = features.shape[1]
        self._score = METRICS[metric_of(self.metric, labels)]
        self.index, self.labels = _index(features), labels.cpu()
        return self

    def votes(self, features: Tensor, ks: tuple[int, ...] | None = None) -> dict[int, Tensor]:
        """Shares of the vote, (M, C), of each k: one search serves all of them.

        Args:
            features: as fitted, (M, D). ks: each from 1 to the number fitted; by default
                ``self.k``.
        """
        check_features(features, width=self.width, cosine=True)
        ks = (self.k,) if ks is None else ks
        if not ks or min(ks) < 1 or max(ks) > len(self.labels):
            raise ValueError(f"each k must be from 1 to the {len(self.labels)} fitted, not {ks}")
        parts: dict[int, list[Tensor]] = {k: [] for k in ks}
        block_size = max(1, BLOCK // (self.classes if self.labels.ndim == 2 else 1))
        for block in features.split(block_size):
            similarity, rows = map(torch.from_numpy, self.index.search(_unit(block), max(ks)))
            neighbours = self.labels[rows]  # (B, k) or (B, k, C)
            for k in ks:
                weight = (similarity[:, :k] / self.temperature).softmax(1)
                if neighbours.ndim == 3:
                    vote = (weight[:, :, None] * (neighbours[:, :k] == 1)).sum(1)
                else:
                    vote = torch.zeros(len(block), self.classes)
                    vote.scatter_add_(1, neighbours[:, :k], weight)
                parts[k].append(vote)
        return {k: torch.cat(votes) for k, votes in parts.items()}

    def predict(self, features: Tensor) -> Tensor:
        """The class with most votes of each row, int64 (M,); of labels (N, C), bool (M, C).

        Of several labels, those that have more than half of the votes.
        """
        votes = self.votes(features)[self.k]
        return votes.argmax(1) if self.labels.ndim == 1 else votes > 0.5

    def score(self, features: Tensor, labels: Tensor) -> float:
        """The metric on features with these labels, in percent."""
        check_features(features, labels, cosine=True)
        check_classes(labels, self.labels)
        return self._score(self.votes(features)[self.k], labels.cpu())


def knn(
    train: Features,
    test: Features,
    *,
    metric: str | None = None,
    ks: tuple[int, ...] = (200, 20),
    temperature: float = 0.07,
) -> dict[str, Any]:
    """The score of :class:`KNN` for several k, none of them tuned.

    Args:
        train: the bank. test: the queries. metric: as of :class:`KNN`.
        ks: each from 1 to the size of the bank; the first gives the score, each ``<metric>_k<k>``.

    Returns:
        "metric" and, under its name, the score in percent; that of each k; the first k and the
        temperature.

    Raises:
        ValueError: a class of test without a training image, or as :class:`KNN`.

    >>> features = Features(torch.eye(3), torch.arange(3))
    >>> knn(features, features, ks=(1,))
    {'metric': 'accuracy', 'accuracy': 100.0, 'accuracy_k1': 100.0, 'k': 1, 'temperature': 0.07}
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"kNN takes ks of at least 1, not {ks}")
    metric = metric_of(metric, train.labels)
    check_classes(test.labels, train.labels)
    check_features(*test, cosine=True)
    fitted = KNN(max(ks), temperature=temperature, metric=metric).fit(*train)
    votes = fitted.votes(test.features, ks)
    scores = {f"{metric}_k{k}": METRICS[metric](votes[k], test.labels) for k in ks}
    first = scores[f"{metric}_k{ks[0]}"]
    return {"metric": metric, metric: first, **scores, "k": ks[0], "temperature": temperature}


def _index(bank: Tensor) -> Any:
    import faiss

    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(_unit(bank))
    return index


def _unit(features: Tensor) -> Any:
    x = features.detach().cpu().float()
    exponent = x.abs().amax(1, keepdim=True).frexp().exponent
    # By a power of two, which rounds nothing: or squares would overflow and vanish.
    return F.normalize(torch.ldexp(x, -exponent)).contiguous().numpy()
