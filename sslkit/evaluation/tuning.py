"""Training of a whole network under a new linear layer, and its score."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from sslkit.backbones import Backbone
from sslkit.evaluation.crops import Centre, Images
from sslkit.evaluation.metrics import METRICS
from sslkit.evaluation.recipes import Recipe, check
from sslkit.training.optimizer import Optimizer, warmup_decay
from sslkit.views import SupervisedView

SCORED = 256  # images a batch where nothing is trained


def batch_norm_momentum(steps: float) -> float:
    """Of an epoch of so many steps: 1 - max(1 - 10 / steps, 0.9), as PyTorch counts it.

    The paper's max(1 - 10 / s, 0.9) is TensorFlow's: the part of the old statistics that is kept.

    Args:
        steps: above 0; a fraction where the data is less than a batch.

    >>> batch_norm_momentum(50), batch_norm_momentum(500)
    (0.1, 0.02)
    """
    return min(10 / steps, 0.1)


class Tuner:
    """Trains copies of a backbone on rows of train, and scores them."""

    def __init__(
        self, backbone: Backbone, train: Images, test: Images, metric: str, classes: int
    ) -> None:
        check(metric in METRICS, f"metric must be one of {', '.join(METRICS)}", metric)
        check(classes >= 2, "classes must be at least 2", classes)
        _check_labels("train", train.labels, metric, classes)
        _check_labels("test", test.labels, metric, classes)
        if (c := without(classes, train.labels)) is not None:
            raise ValueError(f"train has no image of class {c}, and needs one of each of {classes}")
        if metric == "map11" and (c := without(classes, test.labels)) is not None:
            raise ValueError(f"test has no image of class {c}, and map11 needs one of each")
        self.backbone, self.metric, self.classes = backbone, metric, classes
        self.images, self.device = train, train.device

    def fit(
        self, rows: Tensor, recipe: Recipe, lr: float, weight_decay: float, bar: tqdm
    ) -> nn.Module | None:
        """The network trained on rows of train, or None where the loss was not finite."""
        size = self.images.finish.size
        crop = SupervisedView(size, scale=(recipe.min_scale, 1.0), normalize=None)
        order = _order(rows, recipe)
        with _seeded(recipe.seed, self.device), torch.enable_grad():
            net = self._network(len(rows) / recipe.batch_size)
            optimizer, schedule = _sgd(net, recipe, lr, weight_decay)
            finite, step = torch.tensor(True, device=self.device), 0
            for images in self.images.views(order, crop, recipe.seed):
                labels = self.images.labels[order[step]].to(self.device)
                loss = _loss(net(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
                step += 1
                finite &= loss.detach().isfinite()
                if step % 50 == 0 and not finite:  # seldom: reading it waits for the device
                    break
        bar.update(recipe.steps - step)
        return net if finite else None

    def _network(self, epoch: float) -> nn.Module:
        """A copy of the backbone under a new linear layer, for epochs of so many steps."""
        head = nn.Linear(self.backbone.feature_dim, self.classes)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        net = nn.Sequential(copy.deepcopy(self.backbone), head).float().requires_grad_().train()
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = batch_norm_momentum(epoch)
        return net.to(self.device, memory_format=torch.channels_last)

    @torch.no_grad()
    def score(self, net: nn.Module | None, images: Images, rows: Tensor) -> float | None:
        """By the metric, in percent; None for a network that diverged."""
        if net is None:
            return None
        net.eval()
        parts = tqdm(rows.split(SCORED), "scoring", delay=2, leave=False, disable=None)
        centre = Centre(images.finish.size)
        scores = torch.cat([net(batch).cpu() for batch in images.views(parts, centre, 0)])
        finite = bool(scores.isfinite().all())
        return METRICS[self.metric](scores, images.labels[rows]) if finite else None


def _order(rows: Tensor, recipe: Recipe) -> Tensor:
    """Rows of each step, (steps, batch): epochs in a stream, so that none is left out of any."""
    generator = torch.Generator().manual_seed(recipe.seed)
    n = recipe.steps * recipe.batch_size
    epochs = math.ceil(n / len(rows))
    stream = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(epochs)]
    return torch.cat(stream)[:n].view(recipe.steps, recipe.batch_size)


def _sgd(
    net: nn.Module, recipe: Recipe, lr: float, weight_decay: float
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    options = Optimizer(
        name="sgd",
        lr=lr,
        lr_scaling="none",
        weight_decay=weight_decay,
        momentum=recipe.momentum,
    )
    optimizer = options.build(net, recipe.batch_size)
    cosine = partial(warmup_decay, warmup=0, total=recipe.steps)
    return optimizer, LambdaLR(optimizer, cosine)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels)
    kept = (labels >= 0).float()
    targets = labels.clamp(min=0).float()
    total = F.binary_cross_entropy_with_logits(logits, targets, weight=kept, reduction="sum")
    return total / kept.sum().clamp(min=1)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """With torch's generators seeded, as dropout draws from them, and then as they were."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.default_generators[device.index].manual_seed(seed)
        yield


def without(classes: int, *parts: Tensor) -> int | None:
    """The first class that a part of the labels has no image of."""
    for labels in parts:
        counts = (labels == 1).sum(0) if labels.ndim == 2 else labels.bincount(minlength=classes)
        if not counts.all():
            return int((counts == 0).nonzero()[0])
    return None


def _check_labels(name: str, labels: Tensor, metric: str, classes: int) -> None:
    shape = ("N", classes) if metric == "map11" else ("N",)
    if labels.shape[1:] != shape[1:] or labels.ndim != len(shape) or labels.dtype != torch.int64:
        wanted = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
        got = f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
        raise ValueError(f"labels of {name} must be int64 {wanted} for {metric}, not {got}")
    if not len(labels):
        raise ValueError(f"{name} has no images")
    low, high = (-1, 1) if metric == "map11" else (0, classes - 1)
    if metric != "map11" and (labels == -1).any():
        raise ValueError(f"fine-tuning needs labels, but some of {name} are -1: none")
    odd = labels[(labels < low) | (labels > high)]
    if len(odd):
        raise ValueError(f"labels of {name} must be from {low} to {high}, but one is {int(odd[0])}")
    if metric != "map11" and len(there := labels.unique()) == 1:
        raise ValueError(f"{name} has one class only, {int(there)}, of {classes}")
