"""Fine-tuning of the whole network (SimCLR, Chen et al. 2020, B.8 and B.5; arXiv:2002.05709)."""

import json
import math
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from sslkit.backbones import Backbone
from sslkit.evaluation.crops import Images
from sslkit.evaluation.recipes import FINETUNE, SEMI1, SEMI10, Recipe, SemiRecipe, budget, cut
from sslkit.evaluation.tuning import Tuner, without
from sslkit.training.files import write_atomically
from sslkit.views import EvaluationView
from sslkit.views.transforms import Statistics

__all__ = [
    "FINETUNE",
    "SEMI1",
    "SEMI10",
    "Recipe",
    "SemiRecipe",
    "budget",
    "cut",
    "finetune",
    "semi",
    "stratified",
]


def finetune(
    backbone: Backbone,
    train: Dataset,
    test: Dataset,
    *,
    size: int,
    normalize: str | Statistics | None,
    metric: str,
    classes: int,
    recipe: Recipe = FINETUNE,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    workers: int | None = None,
    grayscale: bool = False,
) -> dict[str, Any]:
    """Fine-tune a copy of the backbone under a new linear layer, by the protocol of B.8.

    SGD with Nesterov momentum, a cosine from the learning rate to 0, no warm-up, random crops and
    flips. Each pair of learning rate and weight decay is trained on nine tenths of train and
    scored on the tenth held out, stratified by class; with the best pair the network is trained
    once more, on all of train, and test is read once. Of equal pairs the first is taken; one that
    diverges in the last training gives way to the next best.

    What the paper leaves open: the linear layer begins at zeros, so that the first step moves it
    alone; biases and normalisation layers are not decayed; the loss of (N, C) labels is binary
    cross-entropy, averaged over the entries that are not -1. The decay is torch's, added to the
    gradient as that of an L2 loss: at a weight decay of d / lr, a step at the peak takes d of
    the weights off (d / (1 - momentum) in the long run), whatever the learning rate.

    Args:
        backbone: its weights, statistics and mode stay as they are.
        train: gives (uint8 image (C, H, W), label); crops are of the whole image, for
            ``LabelledImages`` of the whole file.
        test: likewise; the shorter side becomes 256 / 224 of ``size``, and its centre is taken;
            images of ``size`` pixels square stay as they are.
        size: pixels of a side that the backbone sees. normalize, grayscale: as of
            ``EvaluationView``.
        metric: a key of ``METRICS``; "map11" is of labels (N, C), 1 for present, 0 for absent, -1
            for present as difficult only; the others of labels (N,).
        classes: their number; labels are below it, and each has an image in train.
        folder: keeps the score of each finished pair, so that none is trained twice; it must be
            of this recipe, data and backbone alone. A pair that is stopped begins anew.
        workers: processes that read and crop images that are not in memory; by default one a
            core, at most 8, for ``LabelledImages``.

    Returns:
        "metric" and the score under its name, in percent, "validation", the score that chose
        "lr" and "weight_decay", "steps"; "diverged", how many trainings did, if any, and "cut".

    Raises:
        ValueError: labels, a recipe or a file in ``folder`` that cannot be used, an image that
            cannot be read, or a network that diverges at every point.

    >>> from sslkit.backbones import ResNet9
    >>> from sslkit.data import ArrayDataset
    >>> images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).mul(12).expand(20, 3, 8, 8)
    >>> data = ArrayDataset(images, (torch.arange(20) > 9).long())
    >>> recipe = Recipe(steps=8, batch_size=8, rates=(0.01,), decays=(0.0,))
    >>> options = {"size": 8, "normalize": "half", "metric": "accuracy", "classes": 2}
    >>> list(finetune(ResNet9(2), data, data, recipe=recipe, **options))
    ['metric', 'accuracy', 'validation', 'lr', 'weight_decay', 'steps', 'cut']
    """
    finish = EvaluationView(size, normalize, grayscale=grayscale)
    train, test = (
        Images(part, finish, recipe.min_scale, device, workers) for part in (train, test)
    )
    tuner, labels = Tuner(backbone, train, test, metric, classes), train.labels
    held = stratified(labels, classes, recipe.validation, seed=recipe.seed, spare=True)
    if not held.any():
        raise ValueError(f"too few images: of {len(labels)} to train on none can be held out")
    if metric == "map11" and (c := without(classes, labels[held], labels[~held])) is not None:
        raise ValueError(f"train needs 2 images of each class, one to choose by, but not of {c}")
    grid = list(dict.fromkeys(product(recipe.rates, recipe.decays)))
    scores = {} if folder is None else _finished(folder, grid)
    with _bar(recipe.steps * (len(grid) - len(scores) + 1)) as bar:
        for lr, decay in grid:
            if (lr, decay) not in scores:
                net = tuner.fit((~held).nonzero()[:, 0], recipe, lr, decay / lr, bar)
                scores[lr, decay] = tuner.score(net, train, held.nonzero()[:, 0])
                if folder is not None:
                    _keep(folder, lr, decay, scores[lr, decay])
        ranked = sorted(
            (pair for pair in grid if scores[pair] is not None), key=lambda pair: -scores[pair]
        )
        diverged = len(grid) - len(ranked)
        for lr, decay in ranked:
            net = tuner.fit(torch.arange(len(labels)), recipe, lr, decay / lr, bar)
            if (score := tuner.score(net, test, torch.arange(len(test.labels)))) is not None:
                break
            diverged += 1
        else:
            raise ValueError(
                f"fine-tuning diverged at each of {len(grid)} pairs of learning rate and decay"
            )
    chosen = {"lr": lr, "weight_decay": decay / lr, "steps": recipe.steps}
    further = {"diverged": diverged, "cut": cut(recipe)}
    said = {key: value for key, value in further.items() if value}
    return {"metric": metric, metric: score, "validation": scores[lr, decay], **chosen, **said}


def semi(
    backbone: Backbone,
    train: Dataset,
    test: Dataset,
    *,
    size: int,
    normalize: str | Statistics | None,
    metric: str,
    classes: int,
    recipe: SemiRecipe = SEMI1,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    grayscale: bool = False,
) -> dict[str, Any]:
    """Fine-tune a copy of the backbone with a part of the labels, by the protocol of B.5.

    As :func:`finetune`, on a part of train that is drawn class by class, at least one image of
    each, but nothing is chosen: the learning rate is 0.05 x batch / 256, without weight decay.
    What the paper leaves open: the learning rate falls by a cosine, and the momentum of BatchNorm
    is that of B.8.

    Args:
        As of :func:`finetune`. recipe: ``SEMI1``, ``SEMI10`` or another.

    Returns:
        As :func:`finetune`, without "validation"; "images", how many labels were used, and
        "batch_size".

    Raises:
        ValueError: as :func:`finetune`.

    >>> from sslkit.backbones import ResNet9
    >>> from sslkit.data import ArrayDataset
    >>> images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).mul(12).expand(20, 3, 8, 8)
    >>> data = ArrayDataset(images, (torch.arange(20) > 9).long())
    >>> options = {"size": 8, "normalize": "half", "metric": "accuracy", "classes": 2}
    >>> scores = semi(ResNet9(2), data, data, recipe=budget(SEMI10, steps=3), **options)
    >>> scores["images"], scores["steps"], scores["cut"]
    (2, 3, '3 of 30 steps')
    """
    finish = EvaluationView(size, normalize, grayscale=grayscale)
    train, test = (
        Images(part, finish, recipe.min_scale, device, workers) for part in (train, test)
    )
    tuner = Tuner(backbone, train, test, metric, classes)
    rows = stratified(train.labels, classes, recipe.fraction, seed=recipe.seed).nonzero()[:, 0]
    batch_size = min(recipe.batch_size, len(rows))
    whole = math.ceil(recipe.epochs * len(rows) / batch_size)
    lr, steps = recipe.rate * batch_size / 256, min(recipe.steps or whole, whole)
    sgd = {key: getattr(recipe, key) for key in ("momentum", "min_scale", "seed")}
    used = Recipe(steps=steps, batch_size=batch_size, **sgd)
    with _bar(steps) as bar:
        net = tuner.fit(rows, used, lr, 0.0, bar)
        score = tuner.score(net, test, torch.arange(len(test.labels)))
    if score is None:
        raise ValueError(f"fine-tuning on {len(rows)} images diverged at a learning rate of {lr}")
    chosen = {"lr": lr, "weight_decay": 0.0, "steps": steps, "batch_size": batch_size}
    said = {"cut": f"{steps:,} of {whole:,} steps"} if steps < whole else {}
    return {"metric": metric, metric: score, **chosen, "images": len(rows), **said}


def stratified(
    labels: Tensor, classes: int, share: float, *, seed: int, spare: bool = False
) -> Tensor:
    """Which rows make up a part that has its share of each class, and at least one image; (N,).

    Args:
        labels: (N,), or (N, C) with 1 for present; there the classes are served from the rarest
            to the most frequent, and one served with a rarer one may exceed its share.
        share: above 0, at most 1.
        spare: leave one image of each class out, even where it is the only one.

    >>> labels = torch.tensor([0] * 20 + [1] * 30 + [2])
    >>> labels[stratified(labels, 3, 0.1, seed=0)].tolist()
    [0, 0, 1, 1, 1, 2]
    >>> labels[stratified(labels, 3, 0.1, seed=0, spare=True)].tolist()
    [0, 0, 1, 1, 1]
    """
    present = labels[:, None] == torch.arange(classes) if labels.ndim == 1 else labels == 1
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    drawn, spared = torch.zeros(2, len(labels), dtype=torch.bool)
    for c in present.sum(0).argsort(stable=True).tolist():
        rows = order[present[order, c]]
        if spare and not spared[rows].any():
            spared[rows[~drawn[rows]][:1]] = True
        wanted = max(1, round(share * len(rows))) - int(drawn[rows].sum())
        drawn[rows[~(drawn | spared)[rows]][: max(0, wanted)]] = True
    return drawn


def _bar(steps: int) -> tqdm:
    return tqdm(total=steps, desc="fine-tuning", unit="step", delay=2, leave=False, disable=None)


def _file(folder: Path, lr: float, decay: float) -> Path:
    return folder / f"lr{lr}_decay{decay}.json"


def _keep(folder: Path, lr: float, decay: float, score: float | None) -> None:
    found = {"lr": lr, "decay": decay, "validation": score}
    write_atomically(_file(folder, lr, decay), json.dumps(found).encode())


def _finished(
    folder: Path, grid: Iterable[tuple[float, float]]
) -> dict[tuple[float, float], float | None]:
    """The scores that the folder keeps; None for a pair that diverged."""
    scores = {}
    for pair in grid:
        if (path := _file(folder, *pair)).exists():
            try:
                score = json.loads(path.read_bytes())["validation"]
                if score is not None and not 0 <= score <= 100:
                    raise ValueError("not in percent")
            except (ValueError, KeyError, TypeError) as error:
                text = f"{path} is damaged: remove it, and its pair is trained again"
                raise ValueError(text) from error
            scores[pair] = score
    return scores
