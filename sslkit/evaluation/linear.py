"""Linear probe: L2-regularised multinomial logistic regression on frozen features, by L-BFGS."""

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from sslkit.evaluation.features import Features

L2 = tuple(10.0**e for e in range(1, -7, -1))


def linear(train: Features, test: Features, *, l2: tuple[float, ...] = L2) -> dict[str, float]:
    """Accuracy of logistic regression on standardised features.

    Features are standardised by the mean and deviation of train. The regulariser is chosen on a
    tenth of train that is held out (drawn with a fixed seed), from strong to weak, each fit
    starting from the one before; then the classifier is fitted on all of train, and test is
    read once.

    Args:
        l2: candidates for lambda in  mean cross-entropy + lambda / 2 |W|^2.

    Returns:
        "accuracy" on test and "validation_accuracy" in percent, and the "l2" that was chosen.

    Raises:
        ValueError: fewer than 2 classes or 10 training features, or a label below 0.

    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> features = Features(x, (x[:, 0] > 0).long())
    >>> linear(features, features)["accuracy"] > 95
    True
    """
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    if min(train.labels.min(), test.labels.min()) < 0:
        raise ValueError("a linear probe needs labels, but some are -1, which stands for none")
    if len(train.labels.unique()) < 2 or len(train.labels) < 10:
        raise ValueError(
            "a linear probe needs at least 2 classes and 10 images to train on, not "
            f"{len(train.labels.unique())} and {len(train.labels)}"
        )
    mean, std = train.features.mean(0), train.features.std(0)
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1), std, 1)
    x, y = (train.features - mean) / std, train.labels
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held, kept = order[: len(x) // 10], order[len(x) // 10 :]
    weight = torch.zeros(classes, x.shape[1] + 1, dtype=x.dtype)
    best, chosen, start = -1.0, l2[0], weight
    for value in tqdm(sorted(l2, reverse=True), "linear probe", delay=2, leave=False, disable=None):
        weight = fit(x[kept], y[kept], value, weight)
        accuracy = _accuracy(weight, x[held], y[held])
        if accuracy > best:
            best, chosen, start = accuracy, value, weight
    weight = fit(x, y, chosen, start)
    accuracy = _accuracy(weight, (test.features - mean) / std, test.labels)
    return {"accuracy": accuracy, "validation_accuracy": best, "l2": chosen}


def fit(x: Tensor, y: Tensor, l2: float, start: Tensor, *, iterations: int = 500) -> Tensor:
    """The minimiser of mean cross-entropy + l2 / 2 |W|^2; the bias is not regularised.

    Args:
        x: (N, D). y: int64 (N,). start: (classes, D + 1), weights and then the bias.

    Returns:
        (classes, D + 1).

    >>> x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    >>> fit(x, y, 0.1, torch.zeros(2, 2))[1, 0] > 0
    tensor(True)
    """
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight],
        max_iter=iterations,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = l2 / 2 * weight[:, :-1].square().sum()
        loss = F.cross_entropy(_logits(weight, x), y) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach()


def _logits(weight: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, weight[:, :-1], weight[:, -1])


def _accuracy(weight: Tensor, x: Tensor, y: Tensor) -> float:
    return 100 * int((_logits(weight, x).argmax(1) == y).sum()) / len(y)
