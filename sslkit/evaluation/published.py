"""What the SimCLR paper reports of transfer (Chen et al. 2020, arXiv:2002.05709), as data."""

from typing import NamedTuple

# The 12 sets in the order of the paper's table, each with the metric that it gives.
SIMCLR12 = {
    "food101": "accuracy",
    "cifar10": "accuracy",
    "cifar100": "accuracy",
    "birdsnap": "accuracy",
    "sun397": "accuracy",
    "stanford_cars": "accuracy",
    "fgvc_aircraft": "mean_per_class",
    "voc2007": "map11",
    "dtd": "accuracy",
    "oxford_pets": "mean_per_class",
    "caltech101": "mean_per_class",
    "flowers102": "mean_per_class",
}


class Published(NamedTuple):
    """A row of the paper's, all of it pretrained on ImageNet or not pretrained."""

    protocol: str  # which of ours it is comparable with
    target: str
    backbone: str
    scores: dict[str, float]  # percent by set
    source: str


def _row(protocol: str, target: str, scores: str, place: str, width: int = 4) -> Published:
    values = map(float, scores.split())
    source = f"Chen et al. 2020, arXiv:2002.05709, {place}"
    of_sets = dict(zip(SIMCLR12, values, strict=True))
    return Published(protocol, target, f"ResNet-50 ({width}x)", of_sets, source)


# fmt: off
PUBLISHED = (
    _row("linear", "SimCLR",
         "76.9 95.3 80.2 48.4 65.9 60.0 61.2 84.2 78.9 89.2 93.9 95.0", "Table 8"),
    _row("linear", "supervised",
         "75.2 95.7 81.2 56.4 64.9 68.8 63.8 83.8 78.7 92.3 94.1 94.2", "Table 8"),
    _row("linear", "SimCLR",
         "68.4 90.6 71.6 37.4 58.8 50.3 50.3 80.5 74.5 83.6 90.3 91.2", "appendix B.8", width=1),
    _row("finetune", "SimCLR",
         "89.4 98.6 89.0 78.2 68.1 92.1 87.0 86.6 77.8 92.1 94.1 97.6", "Table 8"),
    _row("finetune", "supervised",
         "88.7 98.3 88.7 77.8 67.0 91.4 88.0 86.5 78.8 93.2 94.2 98.0", "Table 8"),
    _row("finetune", "random init",
         "88.3 96.0 81.9 77.0 53.7 91.3 84.8 69.4 64.1 82.7 72.5 92.5", "Table 8"),
)
# fmt: on
