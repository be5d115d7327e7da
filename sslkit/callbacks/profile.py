"""Where the time of a training step goes."""

import statistics
import time
from collections import defaultdict
from itertools import pairwise
from typing import Any

import torch
from pytorch_lightning.profilers import Profiler
from torch import Tensor, nn

PARTS = (
    "data",
    "views",
    "network forward",
    "loss",
    "network backward",
    "optimiser",
    "loop",
)
ACTIONS = {  # the last word of what Lightning's trainer calls its actions
    "train_dataloader_next": "data",
    "batch_to_device": "data",
    "training_step": "network forward",
    "backward": "network backward",
    "optimizer_step": "optimiser",
}
WARMUP = 5


class StepProfile(Profiler):
    """Lightning's trainer, timed step by step: each moment belongs to one part.

    The parts are getting a batch (``data``), making ``views``, the ``network`` (backbone and
    heads) forward and backward, the ``loss`` both ways, the ``optimiser``, and the ``loop``, which
    is all the rest: the trainer and its callbacks. What a method logs and seeds within its step
    counts as network forward, and so does the loss of a method without a module ``loss``. Marks
    are device events on a GPU, which waits for nothing until the end; a part then takes in the
    time that the device idles before it.

    Given to a trainer as ``profiler``, after ``watch``.

    Args:
        warmup: first steps, at each size of views, that do not count.

    >>> StepProfile().found()
    {}
    """

    def __init__(self, warmup: int = WARMUP) -> None:
        super().__init__()
        self.warmup = warmup
        self.first_step = 0.0  # when it was done, by time.time()
        self._cuda = False
        self._stack = ["loop"]
        self._marks: list[tuple[str, Any]] = []
        self._steps: list[tuple[int, int]] = []  # end of a step among the marks, size of its views
        self._size = 0
        self._in_loss = False

    def watch(self, method: Any, device: torch.device | str) -> "StepProfile":
        """Hook onto a method's view and loss; it will be trained on that device."""
        self._cuda = torch.device(device).type == "cuda"
        # Functions and no methods: the copy of a view would have a hook of a copied profile.
        method.view.register_forward_pre_hook(lambda *_: self._enter("views"))
        method.view.register_forward_hook(lambda view, given, made: self._viewed(made))
        if isinstance(getattr(method, "loss", None), nn.Module):
            method.loss.register_forward_pre_hook(lambda loss, given: self._losing(given))
            method.loss.register_forward_hook(lambda *_: self._leave())
        return self

    def start(self, action_name: str) -> None:
        """What Lightning calls before an action."""
        if part := self._part(action_name):
            self._enter(part)

    def stop(self, action_name: str) -> None:
        """What Lightning calls after it."""
        if self._part(action_name):
            self._leave()
        if action_name == "run_training_batch":
            self._mark()
            self._steps.append((len(self._marks), self._size))
            if not self.first_step:
                if self._cuda:
                    torch.cuda.synchronize()
                self.first_step = time.time()

    def describe(self) -> None:
        """Nothing: the caller prints what was found."""

    def found(self) -> dict[int, dict[str, float]]:
        """Milliseconds of each part of a step, medians over steps, by the size of its views."""
        if self._cuda:
            torch.cuda.synchronize()
        laps: dict[int, list[dict[str, float]]] = defaultdict(list)
        for (start, _), (end, size) in pairwise(self._steps):
            times = dict.fromkeys(PARTS, 0.0)
            for (_, a), (part, b) in pairwise(self._marks[start - 1 : end]):
                times[part] += a.elapsed_time(b) if self._cuda else 1e3 * (b - a)
            laps[size].append(times)
        counted = {size: of[self.warmup :] for size, of in laps.items()}
        return {
            size: {part: statistics.median(t[part] for t in of) for part in PARTS}
            for size, of in counted.items()
            if of
        }

    @staticmethod
    def _part(action: str) -> str | None:
        if action.startswith("[Callback]"):  # some are named like what they hook onto
            return None
        return ACTIONS.get(action.rpartition(".")[2].rpartition("]")[2])

    def _mark(self) -> None:
        """The time since the last mark belongs to the part at hand."""
        moment: Any = time.perf_counter()
        if self._cuda:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._marks.append((self._stack[-1], moment))

    def _enter(self, part: str) -> None:
        self._mark()
        if part == "network backward" and self._in_loss:
            part = "loss"  # until the gradient arrives at what the loss was given
        self._stack.append(part)

    def _leave(self) -> None:
        self._mark()
        self._stack.pop()

    def _viewed(self, made: Any) -> None:
        self._leave()
        views = getattr(made, "views", made)
        first = views if isinstance(views, Tensor) else views[0]
        self._size, self._in_loss = first.shape[-1], False

    def _losing(self, given: tuple[Any, ...]) -> None:
        self._enter("loss")
        for z in given:
            if isinstance(z, Tensor) and z.requires_grad:
                self._in_loss = True
                z.register_hook(self._arrived)

    def _arrived(self, gradient: Tensor) -> None:
        if self._in_loss:
            self._in_loss = False
            self._mark()
            self._stack[-1] = "network backward"
