"""SimCLR with the fast views and with torchvision's: eval/results/views_downstream.json.

    python eval/views_downstream.py --epochs 2 --seeds 0 1 2

Backbone, optimiser, loss and views are those of `simclr_cifar10_cpu` before the search of
`eval/recipe.py`, the budget is equal, and only who makes the views differs: `SimCLRViews`, or
torchvision v2 image by image with the same parameters. Scores are kNN and linear accuracies on the
test split in percent.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from records import RESULTS, provenance
from torch import Tensor
from torchvision.transforms import v2

from sslkit.backbones import ResNet9
from sslkit.data import DataModule
from sslkit.evaluation import evaluate
from sslkit.methods import SimCLR
from sslkit.training import Optimizer
from sslkit.views import SimCLRViews, View


class TorchvisionViews(View):
    """What `SimCLRViews(32, scale=(0.2, 1), jitter=0.5, blur=False)` makes, by torchvision."""

    def __init__(self) -> None:
        super().__init__(32, "cifar10")
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(32, scale=(0.2, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
                v2.RandomGrayscale(0.2),
            ]
        )

    def make(self, images: Tensor) -> tuple[Tensor, ...]:
        views = (torch.stack([self.transform(image) for image in images]) for _ in range(2))
        return tuple(self.normalized(view.float() / 255) for view in views)


VIEWS = {
    "sslkit": lambda: SimCLRViews(
        32, scale=(0.2, 1.0), jitter=0.5, blur=False, normalize="cifar10"
    ),
    "torchvision": TorchvisionViews,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=int, help="images of the pretraining and of the scores")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    args = parser.parse_args()
    command = f"python eval/views_downstream.py --epochs {args.epochs} --seeds "
    command += " ".join(map(str, args.seeds)) + (f" --limit {args.limit}" if args.limit else "")
    record = {**provenance(command), "epochs": args.epochs, "views": {name: [] for name in VIEWS}}
    args.results.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for name in VIEWS:
            record["views"][name].append(run(name, seed, args.epochs, args.limit))
            text = json.dumps(record | {"summary": summary(record["views"])}, indent=2)
            (args.results / "views_downstream.json").write_text(text + "\n")
            print(text.partition('"views"')[2], flush=True)


def run(name: str, seed: int, epochs: int, limit: int | None) -> dict[str, float]:
    """One pretraining and its scores."""
    pl.seed_everything(seed, verbose=False)
    optimizer = Optimizer(
        name="adamw", lr=0.002, lr_scaling="none", weight_decay=1e-4, warmup_epochs=0.5
    )
    method = SimCLR(ResNet9(16), VIEWS[name](), optimizer, temperature=0.2)
    trainer = pl.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    started = time.perf_counter()
    trainer.fit(method, datamodule=DataModule("cifar10", batch_size=256, limit=limit))
    seconds = time.perf_counter() - started
    view = method.eval_view
    scores = evaluate(method.backbone.eval(), view, "cifar10", limit=limit)["protocols"]
    return {
        "seed": seed,
        "knn": scores["knn"]["accuracy"],
        "linear": scores["linear"]["accuracy"],
        "loss": trainer.callback_metrics["train/loss"].item(),
        "pretraining_seconds": round(seconds),
    }


def summary(views: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the seeds and deviations."""
    found: dict[str, dict[str, float]] = {}
    for score in ("knn", "linear"):
        values = {name: [run[score] for run in runs] for name, runs in views.items() if runs}
        found[score] = {}
        for name, scores in values.items():
            found[score][f"{name}, mean"] = round(statistics.mean(scores), 2)
            if len(scores) > 1:
                found[score][f"{name}, deviation"] = round(statistics.stdev(scores), 2)
    return found


if __name__ == "__main__":
    main()
