"""Each method learns on the embedded set in seconds: its objective falls to a level, and a linear
probe on its features beats one on random weights by a margin."""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from kornia.color import lab_to_rgb, rgb_to_lab

from sslkit.backbones import ResNet9
from sslkit.data import ArrayDataset, load
from sslkit.evaluation import extract_layers, linear
from sslkit.methods import (
    Batch,
    Colorization,
    InstanceDiscrimination,
    Jigsaw,
    Method,
    MoCo,
    RelativePosition,
    Rotation,
    SimCLR,
    Supervised,
)
from sslkit.views import (
    AugmentedViews,
    ColorizationView,
    JigsawView,
    RelativePositionView,
    RotationView,
    SimCLRViews,
    Targeted,
)


class Case(NamedTuple):
    make: Callable[[ResNet9], Method]
    steps: int
    loss: float  # what the mean of the last ten losses is below
    layer: str
    margin: float  # points of linear accuracy of that layer above random weights
    lr: float = 3e-3
    images: int = 4096  # that are trained on
    tinted: bool = False  # whether each class has a hue of its own


SIMCLR = SimCLRViews(32, scale=(0.2, 1.0), jitter=0.5, grayscale=0.5, blur=False, normalize="half")
INSTDISC = {"scale": (0.2, 1.0), "jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.5}
CASES = {
    "Rotation": Case(
        lambda b: Rotation(b, RotationView(32, scale=(0.1, 0.6), normalize="half")),
        *(100, 0.8, "stage2", 3),
    ),
    "RelativePosition": Case(
        lambda b: RelativePosition(
            b,
            RelativePositionView(
                32, patch=8, gap=2, jitter=1, pairs=8, color="none", normalize="half"
            ),
            hidden_dim=128,
        ),
        *(150, 1.9, "stage2", 3, 2e-3),
    ),
    "Jigsaw": Case(
        lambda b: Jigsaw(
            b,
            JigsawView(32, tile=8, cell=10, permutations=24, normalize="half"),
            hidden_dim=64,
            fused_dim=256,
        ),
        *(150, 1.0, "stage1", 3, 2e-3),
    ),
    "Colorization": Case(
        lambda b: Colorization(b, ColorizationView(32, normalize="half"), hidden_dim=32),
        *(100, 1.8, "stage3", 15),
        tinted=True,
    ),
    "InstanceDiscrimination": Case(
        lambda b: InstanceDiscrimination(b, AugmentedViews(INSTDISC, size=32, normalize="half")),
        *(150, 5.4, "stage3", 5, 1e-3, 512),
    ),
    "MoCo": Case(
        lambda b: MoCo(b, SIMCLR, momentum=0.99, queue_size=512, splits=4),
        *(80, 5.8, "stage3", 3, 1e-3),
    ),
    "SimCLR": Case(lambda b: SimCLR(b, SIMCLR, temperature=0.1), 60, 4.2, "stage3", 15),
    "Supervised": Case(lambda b: Supervised(b, SIMCLR, classes=10), 40, 1.8, "stage3", 20),
}
BATCH = 64


def shapes(split, limit, tinted):
    """The embedded set; tinted where the method has to learn from colours.

    Its own are mostly drawn at random and say little of its classes: on its grey images random
    weights score 48 to 63, by their seed, and a few seconds of training do not beat them.
    """
    data = load("shapes", split, limit=limit)
    if not tinted:
        return data
    hue = 2 * math.pi / 10 * data.labels.float()
    lab = rgb_to_lab(data.images / 255)
    lab[:, 1:] = 40 * torch.stack((hue.cos(), hue.sin()), 1)[..., None, None]
    return ArrayDataset((lab_to_rgb(lab) * 255).round().byte(), data.labels, data.classes)


def probe(method, layer, tinted):
    """Linear accuracy of a layer on images of the test split."""
    splits = shapes("train", 4096, tinted), shapes("test", 1000, tinted)
    features = [
        extract_layers(method.backbone, data, method.eval_view, [layer])[layer] for data in splits
    ]
    return linear(*features, l2=(1e-2, 1e-3))["accuracy"]


def trained(case):
    """The method, and its losses over a plain loop."""
    torch.manual_seed(0)
    data = shapes("train", case.images, case.tinted)
    method = case.make(ResNet9(8))
    method.prepare(data, BATCH)
    optimizer = torch.optim.AdamW(method.parameters(), case.lr)
    losses = []
    for _ in range(case.steps):
        index = torch.randperm(len(data))[:BATCH]
        made = method.view(data.images[index])
        views, targets = made if isinstance(made, Targeted) else (made, None)
        batch = Batch(views, targets, data.labels[index], index)
        optimizer.zero_grad()
        loss = method.objective(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return method, losses


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_learns(name):
    case = CASES[name]
    torch.manual_seed(0)
    random = probe(case.make(ResNet9(8)), case.layer, case.tinted)
    method, losses = trained(case)
    assert sum(losses[-10:]) / 10 < case.loss
    assert probe(method, case.layer, case.tinted) > random + case.margin
