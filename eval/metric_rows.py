"""The rows of metric learning's tables, and what `eval/metric_learning.py` chooses for each."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from sslkit import losses, miners
from sslkit.backbones import ResNet9
from sslkit.methods import DAML, DEDSP, PADS, MetricLearning
from sslkit.training import Optimizer
from sslkit.views import SupervisedView

Candidate = dict[str, Any]
STARTS = ("random weights", "SimCLR")
WARMUP = 20  # steps


class Row(NamedTuple):
    """A method over a loss; ``fixed`` are its options, out of ``knobs`` one is chosen."""

    loss: str
    method: type[MetricLearning] = MetricLearning
    fixed: tuple[tuple[str, float], ...] = ()
    knobs: tuple[tuple[str, float], ...] = ()

    @property
    def judges_itself(self) -> bool:
        """Whether it needs training images that no batch shows."""
        return self.method in (DEDSP, PADS)


class Setting(NamedTuple):
    """What all rows of a data set have in common."""

    pixels: int  # of a side of the stored images
    view: dict[str, Any]  # arguments of SupervisedView
    self_supervised: str  # the config of the run that the second half of the rows begins from
    held_out: int  # images of a class, for the rows that judge themselves
    like: str | None = None  # the set whose choices hold here too, but for the losses' rates
    width: int = 16
    batch: int = 64
    per_class: int = 2


SETS = {
    "omniglot": Setting(
        32,
        {"size": 28, "scale": [0.6, 1.0], "flip": 0.0, "normalize": "half"},
        "simclr_omniglot_cpu",
        held_out=4,
    ),
    "cars196": Setting(
        48,
        {"size": 40, "scale": [0.4, 1.0], "normalize": "half"},
        "simclr_cars196_cpu",
        held_out=2,
        like="omniglot",
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
SYNTHETIC = (("synthetic", 1.0), ("synthetic", 0.3), ("synthetic", 0.1))
POLICY = (("policy_lr", 0.02), ("policy_lr", 0.005))
UNIFORM = (("policy_lr", 0.0),)  # leaves the policies of DE-DSP as they begin
ROWS = {
    "DDML": Row("DDML"),
    "contrastive": Row("contrastive"),
    "DAML (contrastive)": Row("contrastive", DAML, knobs=SYNTHETIC),
    "triplet": Row("triplet"),
    "semi-hard triplet": Row("semi-hard triplet"),
    "DAML (triplet)": Row("triplet", DAML, knobs=SYNTHETIC),
    "uniform sampling (triplet)": Row("triplet", DEDSP, UNIFORM),
    "DE-DSP (triplet)": Row("triplet", DEDSP, knobs=POLICY),
    "PADS (triplet)": Row("triplet", PADS, knobs=POLICY),
    "lifted": Row("lifted"),
    "DAML (lifted)": Row("lifted", DAML, knobs=SYNTHETIC),
    "clustering": Row("clustering"),
    "angular": Row("angular"),
    "N-pair": Row("N-pair"),
    "DAML (N-pair)": Row("N-pair", DAML, knobs=SYNTHETIC),
    "uniform sampling (N-pair)": Row("N-pair", DEDSP, UNIFORM),
    "DE-DSP (N-pair)": Row("N-pair", DEDSP, knobs=POLICY),
}
# A loss's learning rate, and whether its embeddings have length 1 where its paper leaves it open.
RATES = {"random weights": (0.0005, 0.002, 0.008), "SimCLR": (0.0001, 0.0005, 0.002)}
LENGTHS = {"triplet": (True,), "semi-hard triplet": (True,), "lifted": (False,), "N-pair": (False,)}


def candidates(row: str, start: str, known: Candidate | None = None) -> list[Candidate]:
    """What is tried for a row that is a loss alone, or for the option of another.

    Args:
        known: what was chosen on a set that this one is like: only a loss's rates are tried then.
    """
    if knobs := ROWS[row].knobs:
        return [] if known else [{name: value} for name, value in knobs]
    lengths = (known["normalize"],) if known else LENGTHS.get(row, (True, False))
    return [{"lr": lr, "normalize": n} for n in lengths for lr in RATES[start]]


def best(tried: list[dict[str, Any]]) -> Candidate:
    """The candidate of the highest Recall@1; the first of equal ones."""
    return max(tried, key=lambda cell: cell["recall@1"])["candidate"]


def setup() -> dict[str, Any]:
    """What is above as plain data: a record of anything else is another record."""
    alone = [row for row in ROWS if row in LOSSES]
    return {
        "sets": {name: setting._asdict() for name, setting in SETS.items()},
        "losses": {name: repr(make()) for name, make in LOSSES.items()},
        "candidates": {s: {row: candidates(row, s) for row in alone} for s in STARTS},
        "options": {
            name: {"fixed": dict(row.fixed), "chosen": [list(knob) for knob in row.knobs]}
            for name, row in ROWS.items()
            if row.fixed or row.knobs
        },
        "defaults": {kind.__name__: defaults(kind) for kind in (DAML, DEDSP, PADS)},
        "steps of warm-up": WARMUP,
    }


def defaults(kind: type[MetricLearning]) -> Candidate:
    """The options that a method has if nothing is said of them."""
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def method_of(row: Row, setting: Setting, chosen: Candidate, batches: int = 1) -> MetricLearning:
    """The model of a row, from random weights.

    Args:
        chosen: the learning rate, "lr", and the method's options. batches: of an epoch.
    """
    options = {**dict(row.fixed), **chosen}
    optimizer = Optimizer(
        name="adamw",
        lr=options.pop("lr"),
        lr_scaling="none",
        weight_decay=5e-4,
        warmup_epochs=WARMUP / batches,
    )
    return row.method(
        ResNet9(setting.width),
        SupervisedView(**setting.view),
        optimizer,
        loss=LOSSES[row.loss](),
        embedding_dim=64,
        **options,
    )
