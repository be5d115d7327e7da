"""The recipes of SimCLR on CIFAR-10 that `eval/recipe.py` tries, on two cores."""

import itertools
from typing import Any

import torch
from torch import Tensor

from sslkit.backbones import ResNet9
from sslkit.losses import DecoupledNTXentLoss, HardNTXentLoss, NTXentLoss
from sslkit.methods import SimCLR
from sslkit.methods.base import Batch
from sslkit.training import Optimizer
from sslkit.views import AugmentedViews, SimCLRViews

Recipe = dict[str, Any]

START: Recipe = {
    "sizes": [],  # of the views of the first `share` of steps
    "share": 0.0,
    "batch": 256,
    "optimizer": "adamw",
    "lr": 0.002,  # not scaled with the batch
    "weight decay": 1e-4,
    "warm-up": 0.03,  # share of all steps
    "schedule": "cosine",
    "temperature": 0.2,
    "crop": 0.2,  # least area
    "jitter": 0.5,
    "hidden": 128,  # width of the projector
    "layers": 2,
    "loss": "NT-Xent",
    "views": 2,  # of each image; batch / views * 2 images a step
    "EMA": 0.0,  # decay
    "precision": "float32",
    "compiled": False,
}
# Changes by what they change: of each the best is kept, or none.
CHANGES: dict[str, list[Recipe]] = {
    "small images first": [{"sizes": [16], "share": 0.7}, {"sizes": [16, 24], "share": 0.8}],
    "batch": [{"batch": 128}, {"batch": 512}],
    "repeated augmentation": [{"views": 4}],
    "optimiser and its rate": [
        {"lr": 0.001},
        {"lr": 0.004},
        {"optimizer": "muon", "momentum": 0.95, "lr": 0.003},
        {"optimizer": "muon", "momentum": 0.95, "lr": 0.006},
        {"optimizer": "sgd", "lr": 0.06, "weight decay": 5e-4},
        {"optimizer": "sgd", "lr": 0.2, "weight decay": 5e-4},
        {"optimizer": "lars", "lr": 0.5},
        {"optimizer": "lars", "lr": 2.0},
    ],
    "schedule": [{"schedule": "linear"}],
    "average of weights": [{"EMA": 0.99}],
    "temperature": [{"temperature": 0.1}, {"temperature": 0.5}],
    "crop": [{"crop": 0.08}, {"crop": 0.4}],
    "jitter": [{"jitter": 0.25}, {"jitter": 1.0}],
    "projector": [{"hidden": 512}, {"hidden": 512, "layers": 3}],
    "loss": [{"loss": "decoupled"}, {"loss": "hard negatives"}],
    "bf16": [{"precision": "bf16"}],
    "compiling": [{"compiled": True}],
}
SAME = {"precision", "compiled"}  # what only computes in another way


class ManyViews(SimCLR):
    """SimCLR with any number of views of an image."""

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.contrast(self.backbone(torch.cat(batch.views)), len(batch.views))}

    def contrast(self, features: Tensor, views: int) -> Tensor:
        z = self.projector(features).chunk(views)
        if type(self.loss) is NTXentLoss:
            return self.loss(*z)
        return torch.stack([self.loss(*pair) for pair in itertools.combinations(z, 2)]).mean()


def simclr(recipe: Recipe, epochs: float, width: int) -> SimCLR:
    """The model of a recipe, for a run of so many epochs."""
    view: AugmentedViews = SimCLRViews(
        32, scale=(recipe["crop"], 1.0), jitter=recipe["jitter"], blur=False, normalize="cifar10"
    )
    view.augments.extend([view.augments[0]] * (recipe["views"] - 2))
    optimizer = Optimizer(
        name=recipe["optimizer"],
        lr=recipe["lr"],
        lr_scaling="none",
        weight_decay=recipe["weight decay"],
        momentum=recipe.get("momentum", 0.9),
        warmup_epochs=recipe["warm-up"] * epochs,
        schedule=recipe["schedule"],
    )
    method = ManyViews(
        ResNet9(width),
        view,
        optimizer,
        hidden_dim=recipe["hidden"],
        projector_layers=recipe["layers"],
    )
    kinds = {"decoupled": DecoupledNTXentLoss, "hard negatives": HardNTXentLoss}
    method.loss = kinds.get(recipe["loss"], NTXentLoss)(recipe["temperature"])
    return method


def images_a_step(recipe: Recipe) -> int:
    return recipe["batch"] * 2 // recipe["views"]
