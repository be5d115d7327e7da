"""Training: optimisers and schedules, checkpoints and the exported backbone."""

from sslkit.training.checkpoint import (
    export_backbone,
    load_backbone,
    read_checkpoint,
    write_text,
)
from sslkit.training.optimizer import Optimizer, decay_groups, warmup_cosine

__all__ = [
    "Optimizer",
    "decay_groups",
    "export_backbone",
    "load_backbone",
    "read_checkpoint",
    "warmup_cosine",
    "write_text",
]
