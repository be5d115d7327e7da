"""Training: optimisers and schedules, checkpoints and the exported backbone."""

from sslkit.training.checkpoint import (
    AtomicCheckpointIO,
    export_backbone,
    load_backbone,
    read_checkpoint,
)
from sslkit.training.files import write_atomically
from sslkit.training.memory import keep_freed_memory
from sslkit.training.modes import evaluating
from sslkit.training.optimizer import Optimizer, decay_groups, warmup_decay

__all__ = [
    "AtomicCheckpointIO",
    "Optimizer",
    "decay_groups",
    "evaluating",
    "export_backbone",
    "keep_freed_memory",
    "load_backbone",
    "read_checkpoint",
    "warmup_decay",
    "write_atomically",
]
