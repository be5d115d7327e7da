"""How fair a teacher the embedded set `shapes` is, without SimCLR: eval/results/shapes.json.

Raw pixels, mean colours and random weights must say little of the class; upright, layout and
colour must be learnable from the images alone.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from kornia.color import rgb_to_lab
from records import RESULTS, provenance
from torch import Tensor, nn
from tqdm import trange

from sslkit.backbones import ResNet9
from sslkit.data import load
from sslkit.evaluation import Features, extract, knn
from sslkit.views import EvaluationView

BATCH = 128


def main(bank: int = 10_000, queries: int = 10_000, steps: int = 300, out: Path = RESULTS) -> None:
    torch.manual_seed(0)
    started = time.perf_counter()
    train = load("shapes", "train")
    seconds = time.perf_counter() - started
    test = load("shapes", "test", limit=queries)
    scores: dict[str, dict[str, float]] = {}
    for name, features in {
        "raw pixels": nn.Flatten(),
        "mean colours of 3x3 cells": nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten()),
        "random weights, ResNet9(width=16)": ResNet9(16),
    }.items():
        view = EvaluationView(32, "half")
        voters, asked = (extract(features, data, view, progress=name) for data in (train, test))
        for size in (bank, len(train)):
            found = knn(Features(voters.features[:size], voters.labels[:size]), asked)
            for k in (200, 20):
                group = f"kNN accuracy, k = {k}, bank {size}, {queries} test images"
                scores.setdefault(group, {})[name] = round(found[f"accuracy_k{k}"], 2)
    images = [data.images[:n].float() / 255 for data, n in ((train, bank), (test, queries))]
    record = {
        **provenance("python eval/shapes.py"),
        "seconds for 50,000 images": round(seconds, 1),
        **scores,
        f"learnt from the images in {steps} steps of {BATCH}": {
            "rotation: accuracy, chance 25": round(Rotation().learn(*images, steps), 1),
            "relative position: accuracy, chance 12.5": round(Position().learn(*images, steps), 1),
            "colour: % of the variance of ab told by L": round(Colour().learn(*images, steps), 1),
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "shapes.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


class Task(nn.Module):
    """A question that the images answer themselves; ``learn`` trains on it, and scores on test."""

    ask: Callable[[Tensor], tuple[Tensor, Tensor]]
    loss = staticmethod(F.cross_entropy)

    def learn(self, train: Tensor, test: Tensor, steps: int) -> float:
        optimizer = torch.optim.AdamW(self.parameters(), 2e-3)
        for _ in trange(steps, desc=type(self).__name__, leave=False, disable=None):
            x, y = self.ask(train[torch.randint(len(train), (BATCH,))])
            optimizer.zero_grad()
            self.loss(self(x), y).backward()
            optimizer.step()
        self.eval()
        with torch.no_grad():
            pairs = [self.ask(chunk) for chunk in test.split(500)]
            return self.score(
                torch.cat([self(x) for x, _ in pairs]), torch.cat([y for _, y in pairs])
            )

    def score(self, predicted: Tensor, y: Tensor) -> float:
        return 100 * (predicted.argmax(1) == y).double().mean().item()


class Rotation(Task):
    """By how many quarter turns? Gidaris et al. 2018."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(ResNet9(8), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    @staticmethod
    def ask(images: Tensor) -> tuple[Tensor, Tensor]:
        turns = torch.randint(4, (len(images),))
        return torch.stack(
            [x.rot90(int(k), (1, 2)) for x, k in zip(images, turns, strict=True)]
        ), turns


class Position(Task):
    """Which of the 8 neighbours of the middle patch is the other patch? Doersch et al. 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ResNet9(8)
        self.head = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x.flatten(0, 1)).unflatten(0, (-1, 2)).flatten(1))

    @staticmethod
    def ask(images: Tensor) -> tuple[Tensor, Tensor]:
        cells = (
            images.unfold(2, 10, 11).unfold(3, 10, 11).flatten(2, 3).transpose(1, 2)
        )  # N 9 3 10 10
        y = torch.randint(8, (len(images),))
        other = cells[torch.arange(len(images)), y + (y >= 4)]
        return torch.stack((cells[:, 4], other), 1), y


class Colour(Task):
    """Which a and b has a pixel, given L alone? Zhang et al. 2016, as a regression."""

    loss = staticmethod(F.mse_loss)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, dilation in ((1, 1), (32, 2), (32, 4), (32, 8)):
            layers += [
                nn.Conv2d(inputs, 32, 3, padding=dilation, dilation=dilation),
                nn.BatchNorm2d(32),
                nn.ReLU(),
            ]
        self.net = nn.Sequential(*layers, nn.Conv2d(32, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    @staticmethod
    def ask(images: Tensor) -> tuple[Tensor, Tensor]:
        lab = rgb_to_lab(images)
        return lab[:, :1] / 50 - 1, lab[:, 1:] / 20

    def score(self, predicted: Tensor, y: Tensor) -> float:
        rest = (predicted - y).square().mean()
        return 100 * (1 - rest / (y - y.mean((0, 2, 3), keepdim=True)).square().mean()).item()


if __name__ == "__main__":
    main()
