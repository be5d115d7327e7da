"""One run of `eval/metric_learning.py`: a row, trained and scored in a process of its own."""

import logging
import statistics
import time
import warnings
from functools import cache
from typing import Any

import pytorch_lightning as pl
import torch
from metric_rows import ROWS, SETS, method_of
from records import commit

from sslkit.backbones import Backbone
from sslkit.data import ArrayDataset, DataModule, gather, load_splits
from sslkit.evaluation import Features, extract, recall_at_k, retrieval
from sslkit.methods import MetricLearning
from sslkit.training import keep_freed_memory, load_backbone

Job = dict[str, Any]
Cell = dict[str, Any]
POINTS = 4  # of a curve
OFF = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")


def run(job: Job) -> Cell:
    """Train a row and score it: on the test classes, or if "half" on training classes held out."""
    prepare(job)
    made_by, row, setting = commit(), ROWS[job["row"]], SETS[job["set"]]
    data = DataModule(
        job["set"],
        size=setting.pixels,
        batch_size=setting.batch,
        per_class=setting.per_class,
        held_out=setting.held_out if row.judges_itself else 0,
    )
    data.setup("fit")
    assert isinstance(data.dataset, ArrayDataset)
    if job["half"]:
        data.dataset, judged = halves(data.dataset)
    else:
        judged = test_images(job["set"], setting.pixels)
    model = method_of(row, setting, job["chosen"], batches=len(data.order()))
    if job["weights"]:
        model.start_from(load_backbone(job["weights"])[0])
    watch = Watch(judged, job["steps"])
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=job["steps"],
        max_epochs=-1,
        callbacks=[] if job["half"] else [watch],
        **dict.fromkeys(OFF, False),
    )
    started = time.perf_counter()
    trainer.fit(model, datamodule=data)
    seconds = time.perf_counter() - started - watch.seconds
    found = scores(model.backbone, model, judged)
    about: Cell = {"candidate": job["tried"]} if job["half"] else {"chosen": job["chosen"]}
    if not job["half"]:
        about["curve"] = [*watch.curve, [job["steps"], found["recall@1"]]]
        about["watched"] = watch.watched
    return {
        "seed": job["seed"],
        **found,
        **about,
        "seconds of training": round(seconds, 1),
        "commit": made_by,
    }


class Watch(pl.Callback):
    """Recall@1 of the judged classes now and then, and the mean of what was logged since."""

    def __init__(self, judged: ArrayDataset, steps: int) -> None:
        self.judged, self.every = judged, max(1, steps // POINTS)
        self.curve: list[list[float]] = []
        self.watched: list[dict[str, float]] = []
        self.since: dict[str, list[float]] = {}
        self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        for name, value in trainer.callback_metrics.items():
            self.since.setdefault(name.removeprefix("train/"), []).append(float(value))
        if trainer.global_step % self.every:
            return
        means = {name: statistics.mean(values) for name, values in self.since.items()}
        self.watched.append({name: float(f"{mean:.4g}") for name, mean in means.items()})
        self.since = {}
        if trainer.global_step < trainer.max_steps:
            started = time.perf_counter()
            score = recall_at_k(*features_of(module.backbone, module, self.judged), ks=(1,))[1]
            self.curve.append([trainer.global_step, round(score, 2)])
            self.seconds += time.perf_counter() - started


def untrained(job: Job) -> Cell:
    """The scores of the weights that rows begin from, without an embedding."""
    prepare(job)
    setting = SETS[job["set"]]
    model = method_of(ROWS["triplet"], setting, {"lr": 1.0})
    if job["weights"]:
        model.start_from(load_backbone(job["weights"])[0])
    test = test_images(job["set"], setting.pixels)
    return {"seed": job["seed"], **scores(model.backbone.backbone, model, test), "commit": commit()}


def about_data(name: str) -> dict[str, Any]:
    """Classes and images of a set's two splits, and how it is not the published one."""
    splits = load_splits(name)
    parts = {"train": splits.train.labels, "test": splits.test.labels}
    counts = {part: [len(labels.unique()), len(labels)] for part, labels in parts.items()}
    return {**counts, "differs": splits.differs}


def scores(backbone: Backbone, model: MetricLearning, judged: ArrayDataset) -> dict[str, float]:
    """Recall@K, MAP@R, NMI and F1 of labelled images, in percent."""
    found = retrieval(features_of(backbone, model, judged))
    return {name: round(score, 2) for name, score in found.items()}


def features_of(backbone: Backbone, model: MetricLearning, images: ArrayDataset) -> Features:
    return extract(backbone, images, model.eval_view, device=str(model.device))


def halves(data: ArrayDataset) -> tuple[ArrayDataset, ArrayDataset]:
    """A set by its classes: a fixed draw of half of them, and the others."""
    assert data.labels is not None
    classes = int(data.labels.max()) + 1
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(0))
    first = torch.isin(data.labels, order[: classes // 2])
    parts = []
    for rows in (first, ~first):
        labels = data.labels[rows].unique(return_inverse=True)[1]
        parts.append(ArrayDataset(data.images[rows], labels))
    return parts[0], parts[1]


@cache
def test_images(name: str, pixels: int) -> ArrayDataset:
    """The test split, decoded once."""
    data = load_splits(name, size=pixels).test
    return ArrayDataset(*gather(data, torch.arange(len(data))))


def prepare(job: Job) -> None:
    keep_freed_memory()
    torch.set_num_threads(job["threads"])
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    pl.seed_everything(job["seed"], verbose=False)
