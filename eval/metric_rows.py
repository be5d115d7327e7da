"""The rows of metric learning's tables, and how `eval/metric_learning.py` trains each."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from sslkit import losses, miners
from sslkit.backbones import ResNet9
from sslkit.methods import DAML, DEDSP, PADS, MetricLearning
from sslkit.training import Optimizer
from sslkit.views import SupervisedView

Candidate = dict[str, Any]


class Row(NamedTuple):
    """What is trained: a method over a loss."""

    loss: str
    method: type[MetricLearning] = MetricLearning
    policy_lr: float | None = None  # of a method that has a policy

    @property
    def judges_itself(self) -> bool:
        """Whether it needs training images that no batch shows."""
        return self.method in (DEDSP, PADS)


class Setting(NamedTuple):
    """What all rows of a data set have in common."""

    pixels: int  # of a side of the stored images
    view: Callable[[], SupervisedView]
    self_supervised: str  # the config of the run that the second half of the rows begins from
    held_out: int  # images of a class, for the rows that judge themselves
    width: int = 16
    batch: int = 64
    per_class: int = 2


SETS = {
    "omniglot": Setting(
        32,
        lambda: SupervisedView(28, scale=(0.6, 1.0), flip=0.0, normalize="half"),
        "simclr_omniglot_cpu",
        held_out=4,
    ),
    "cars196": Setting(
        48,
        lambda: SupervisedView(40, scale=(0.4, 1.0), normalize="half"),
        "simclr_cars196_cpu",
        held_out=2,
    ),
}
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "contrastive": losses.ContrastiveLoss,
    "DDML": losses.DDMLLoss,
    "triplet": losses.TripletMarginLoss,
    "semi-hard triplet": lambda: losses.TripletMarginLoss(miner=miners.semi_hard),
    "lifted": losses.LiftedStructureLoss,
    "clustering": losses.FacilityLocationLoss,
    "angular": losses.AngularLoss,
    "N-pair": lambda: losses.NPairLoss(l2=0.002),
}
UNIFORM = 0.0  # leaves the policies of DE-DSP as they begin
ROWS = {
    "DDML": Row("DDML"),
    "contrastive": Row("contrastive"),
    "DAML (contrastive)": Row("contrastive", DAML),
    "triplet": Row("triplet"),
    "semi-hard triplet": Row("semi-hard triplet"),
    "DAML (triplet)": Row("triplet", DAML),
    "uniform sampling (triplet)": Row("triplet", DEDSP, UNIFORM),
    "DE-DSP (triplet)": Row("triplet", DEDSP),
    "PADS (triplet)": Row("triplet", PADS),
    "lifted": Row("lifted"),
    "DAML (lifted)": Row("lifted", DAML),
    "clustering": Row("clustering"),
    "angular": Row("angular"),
    "N-pair": Row("N-pair"),
    "DAML (N-pair)": Row("N-pair", DAML),
    "uniform sampling (N-pair)": Row("N-pair", DEDSP, UNIFORM),
    "DE-DSP (N-pair)": Row("N-pair", DEDSP),
}
# A loss's learning rate, and whether its embeddings have length 1 where its paper leaves it open.
RATES = (0.0005, 0.002)
LENGTHS = {"triplet": (True,), "semi-hard triplet": (True,), "lifted": (False,), "N-pair": (False,)}
CANDIDATES: dict[str, list[Candidate]] = {
    loss: [
        {"lr": lr, "normalize": normalize}
        for normalize in LENGTHS.get(loss, (True, False))
        for lr in RATES
    ]
    for loss in LOSSES
}


def best(tried: list[dict[str, Any]]) -> Candidate:
    """The candidate of the highest Recall@1; the first of equal ones."""
    return max(tried, key=lambda cell: cell["recall@1"])["candidate"]


def method_of(row: Row, setting: Setting, chosen: Candidate) -> MetricLearning:
    """The model of a row, from random weights."""
    optimizer = Optimizer(
        name="adamw", lr=chosen["lr"], lr_scaling="none", weight_decay=5e-4, warmup_epochs=1
    )
    options = {} if row.policy_lr is None else {"policy_lr": row.policy_lr}
    return row.method(
        ResNet9(setting.width),
        setting.view(),
        optimizer,
        loss=LOSSES[row.loss](),
        embedding_dim=64,
        normalize=chosen["normalize"],
        **options,
    )
