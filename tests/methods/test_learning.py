"""Each method learns on the embedded set in seconds: its objective falls to a level, and a linear
probe on its features beats one on random weights by a margin."""

from typing import NamedTuple

import pytest
import torch

from sslkit.backbones import ResNet9
from sslkit.data import load
from sslkit.evaluation import extract_layers, linear
from sslkit.methods import (
    Batch,
    InstanceDiscrimination,
    Jigsaw,
    MoCo,
    RelativePosition,
    Rotation,
    SimCLR,
    Supervised,
)
from sslkit.views import (
    AugmentedViews,
    JigsawView,
    RelativePositionView,
    RotationView,
    SimCLRViews,
    Targeted,
)


class Case(NamedTuple):
    make: object  # backbone to method
    steps: int
    loss: float  # what the mean of the last ten losses is below
    layer: str
    margin: float  # points of linear accuracy of that layer above random weights


def contrasted(blur=False):
    return SimCLRViews(32, scale=(0.2, 1.0), jitter=0.5, grayscale=0.5, blur=blur, normalize="half")


RECIPE = {"scale": (0.2, 1.0), "jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.5}
CASES = {
    "RelativePosition": Case(
        lambda b: RelativePosition(
            b,
            RelativePositionView(32, patch=8, gap=2, jitter=1, pairs=4, normalize="half"),
            hidden_dim=128,
        ),
        *(100, 2.0, "stage3", 3),
    ),
    "Jigsaw": Case(
        lambda b: Jigsaw(
            b,
            JigsawView(32, tile=8, cell=10, permutations=24, normalize="half"),
            hidden_dim=64,
            fused_dim=256,
        ),
        *(100, 3.0, "stage3", 3),
    ),
    "InstanceDiscrimination": Case(
        lambda b: InstanceDiscrimination(b, AugmentedViews(RECIPE, size=32, normalize="half")),
        *(100, 6.0, "stage3", 10),
    ),
    "MoCo": Case(
        lambda b: MoCo(b, contrasted(), momentum=0.9, queue_size=512, splits=2),
        *(80, 5.0, "stage3", 10),
    ),
    "Rotation": Case(
        lambda b: Rotation(b, RotationView(32, scale=(0.1, 0.6), normalize="half")),
        *(100, 0.8, "stage2", 3),
    ),
    "SimCLR": Case(lambda b: SimCLR(b, contrasted(), temperature=0.1), 60, 4.2, "stage3", 15),
    "Supervised": Case(lambda b: Supervised(b, contrasted(), classes=10), 40, 1.8, "stage3", 20),
}
BATCH = 64


def probe(method, layer, *splits):
    features = [
        extract_layers(method.backbone, data, method.eval_view, [layer])[layer] for data in splits
    ]
    return linear(*features, l2=(1e-2, 1e-3))["accuracy"]


@pytest.mark.parametrize("name", CASES)
def test_it_learns(name):
    case = CASES[name]
    torch.manual_seed(0)
    train, test = load("shapes", "train", limit=4096), load("shapes", "test", limit=1000)
    method = case.make(ResNet9(8))
    method.prepare(train, BATCH)
    random = probe(method, case.layer, train, test)
    optimizer = torch.optim.AdamW(method.parameters(), 3e-3)
    losses = []
    for _ in range(case.steps):
        index = torch.randperm(len(train))[:BATCH]
        made = method.view(train.images[index])
        views, targets = made if isinstance(made, Targeted) else (made, None)
        views = (views,) if isinstance(views, torch.Tensor) else views
        found = method.objective(Batch(views, targets, train.labels[index], index))
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        losses.append(found["loss"].item())
    assert sum(losses[-10:]) / 10 < case.loss
    assert probe(method, case.layer, train, test) > random + case.margin
