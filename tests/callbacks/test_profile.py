import copy
import statistics
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from sslkit.backbones import ResNet9
from sslkit.callbacks import StepProfile
from sslkit.callbacks.profile import PARTS
from sslkit.data import DataModule
from sslkit.methods import Rotation, SimCLR
from sslkit.training import Optimizer
from sslkit.views import RotationView, SimCLRViews, Targeted


class Clock:
    """Stands still until a test moves it on."""

    now = 0.0

    def perf_counter(self):
        return self.now

    time = perf_counter

    def __deepcopy__(self, memo):
        return self


class Ticking(Clock):
    """Moves on by a second whenever it is read."""

    def perf_counter(self):
        self.now += 1
        return self.now


@pytest.fixture
def set_clock(monkeypatch):
    """What a test calls to have its profile read a clock."""

    def set_clock(clock):
        monkeypatch.setattr("sslkit.callbacks.profile.time", clock)
        return clock

    return set_clock


@pytest.fixture
def clock(set_clock):
    return set_clock(Clock())


class Spend(torch.autograd.Function):
    """The identity, which takes so many seconds forward and backward."""

    @staticmethod
    def forward(ctx, x, clock, forth, back):
        clock.now += forth
        ctx.clock, ctx.back = clock, back
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        ctx.clock.now += ctx.back
        return gradient, None, None, None


class Takes(nn.Module):
    """The last of what it is given, after so many seconds."""

    def __init__(self, clock, forth, back=0.0):
        super().__init__()
        self.clock, self.forth, self.back = clock, forth, back

    def forward(self, *given):
        return Spend.apply(given[-1], self.clock, self.forth, self.back)


LOOP, OPTIMIZER = "run_training_batch", "[LightningModule]SimCLR.optimizer_step"
NEXT = "[_TrainingEpochLoop].train_dataloader_next"
TO_DEVICE = "[Strategy]SingleDeviceStrategy.batch_to_device"
STEP, BACKWARD = (
    "[Strategy]SingleDeviceStrategy." + name for name in ("training_step", "backward")
)


class Loop:
    """What Lightning's loop tells a profiler; every interval of a step is a power of two."""

    def __init__(self, clock, profile, loss=True):
        self.clock, self.profile = clock, profile
        self.method = SimpleNamespace(view=Takes(clock, 64), network=Takes(clock, 128, 2048))
        if loss:
            self.method.loss = Takes(clock, 256, 1024)
        profile.watch(self.method, "cpu")

    def spend(self, seconds):
        self.clock.now += seconds

    def step(self, size=8, give=lambda z: (z,), used=True):
        """One step; ``give`` makes what the loss is given of what the network returns.

        Without ``used`` the backward pass is not that of the loss.
        """
        profile, method = self.profile, self.method
        with profile.profile(NEXT):
            self.spend(1)
        self.spend(2)
        with profile.profile(TO_DEVICE):
            self.spend(4)
        with profile.profile(LOOP):
            self.spend(8)
            with profile.profile(OPTIMIZER):
                self.spend(16)
                with profile.profile(STEP):
                    self.spend(32)
                    view = method.view(torch.zeros(1, 3, size, size))
                    z = method.network(view.requires_grad_())
                    loss = method.loss(*give(z)) if hasattr(method, "loss") else z
                    total = loss + z if used else z
                with profile.profile(BACKWARD):
                    self.spend(512)
                    total.sum().backward()
                self.spend(4096)
        with profile.profile("[Callback]Progress.training_step"):  # a name that is none of a part
            self.spend(8192)


SECONDS = {
    "data": 1 + 4,
    "views": 64,
    "network forward": 32 + 128,
    "loss": 256 + 512 + 1024,
    "network backward": 2048,
    "optimiser": 16 + 4096,
    "loop": 2 + 8 + 8192,
}


def ms(seconds):
    return {part: 1e3 * value for part, value in seconds.items()}


def test_each_moment_belongs_to_the_innermost_part(clock):
    profile = StepProfile(warmup=0)
    loop = Loop(clock, profile)
    clock.now = 5000.0  # before the first step
    loop.step()
    assert profile.found() == {}
    loop.step()
    assert profile.found() == {8: ms(SECONDS)}
    assert list(profile.found()[8]) == list(PARTS)
    assert sum(SECONDS.values()) == 2**14 - 1  # each interval once
    profile.describe()


def test_without_a_module_loss_its_time_is_the_networks(clock):
    profile = StepProfile(warmup=0)
    loop = Loop(clock, profile, loss=False)
    loop.step()
    loop.step()
    expected = SECONDS | {"loss": 0, "network backward": 512 + 2048}
    assert profile.found() == {8: ms(expected)}


def test_a_loss_that_is_given_constants_before_what_has_a_gradient(clock):
    profile = StepProfile(warmup=0)
    loop = Loop(clock, profile)
    for _ in range(2):
        loop.step(give=lambda z: (3, torch.zeros_like(z), z))
    assert profile.found() == {8: ms(SECONDS)}


def test_a_loss_without_a_gradient_leaves_the_backward_pass_to_the_network(clock):
    profile = StepProfile(warmup=0)
    loop = Loop(clock, profile)
    loop.step(give=lambda z: (torch.zeros_like(z).requires_grad_(),), used=False)
    loop.step(give=lambda z: (z.detach(),))
    expected = SECONDS | {"loss": 256, "network backward": 512 + 2048}
    assert profile.found() == {8: ms(expected)}


def test_medians_by_the_size_of_the_views_after_the_warmup_of_each(clock):
    sizes = [8, 8, 8, 8, 8, 4, 4, 4, 4, 2, 2]
    slow = [0, 99, 2, 7, 3, 99, 10, 20, 0, 99, 1]
    profile = StepProfile(warmup=1)
    loop = Loop(clock, profile)
    for size, seconds in zip(sizes, slow, strict=True):
        loop.spend(seconds)
        loop.step(size)
    # The step after the first is the first of 8 pixels that is whole; it and the first of each
    # other size are left out.
    counted = {8: [2, 7, 3], 4: [10, 20, 0], 2: [1]}
    expected = {
        size: ms(SECONDS | {"loop": SECONDS["loop"] + statistics.median(of)})
        for size, of in counted.items()
    }
    assert profile.found() == expected
    profile.warmup = 3  # more than there are of 2 pixels
    assert profile.found() == {8: ms(SECONDS | {"loop": SECONDS["loop"] + 3}), 4: ms(SECONDS)}


@pytest.mark.parametrize(
    "made",
    [
        torch.zeros(1, 3, 5, 6),
        (torch.zeros(1, 3, 5, 6), torch.zeros(1, 3, 2, 2)),
        Targeted((torch.zeros(1, 3, 5, 6),), torch.zeros(1)),
    ],
)
def test_the_size_is_that_of_the_first_view_however_they_come(clock, made):
    profile = StepProfile(warmup=0)
    method = SimpleNamespace(view=nn.Identity())
    profile.watch(method, "cpu")
    for _ in range(2):
        with profile.profile(LOOP):
            method.view(made)
    assert list(profile.found()) == [6]


def test_a_copy_of_the_view_is_timed_too_and_leaves_the_loop_in_place(clock):
    profile = StepProfile(warmup=0)
    loop = Loop(clock, profile)
    loop.step()
    copy.deepcopy(loop.method.view)(torch.zeros(1, 3, 8, 8))  # as between epochs
    loop.spend(3)
    loop.step()
    expected = SECONDS | {"views": 2 * 64, "loop": SECONDS["loop"] + 3}
    assert profile.found() == {8: ms(expected)}


def test_when_the_first_step_was_done(clock):
    profile = StepProfile()
    assert profile.first_step == 0
    clock.now = 1000.0
    loop = Loop(clock, profile)
    loop.step()
    done = clock.now - 8192  # what comes after the batch
    assert profile.first_step == done
    loop.step()
    assert profile.first_step == done


class Noted(StepProfile):
    """Keeps at what moment each step ended."""

    def __init__(self, clock, warmup):
        super().__init__(warmup)
        self.clock, self.ends = clock, []

    def stop(self, action_name):
        super().stop(action_name)
        if action_name == LOOP:
            self.ends.append(self.clock.now)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize(
    ("kind", "view", "absent"), [(SimCLR, SimCLRViews, []), (Rotation, RotationView, ["loss"])]
)
def test_the_parts_of_a_real_step_are_all_of_it(set_clock, monkeypatch, kind, view, absent, steps):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    profile = Noted(set_clock(Ticking()), warmup=steps - 2)  # the last step alone counts
    method = kind(ResNet9(2), view(16), Optimizer(warmup_epochs=0))
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_steps=steps,
        max_epochs=-1,
        profiler=profile.watch(method, "cpu"),
    )
    trainer.fit(method, datamodule=DataModule("shapes", limit=32, batch_size=16))
    ((size, parts),) = profile.found().items()
    *_, before, last = profile.ends
    assert size == 16
    assert sum(parts.values()) == 1e3 * (last - before)
    assert [part for part in PARTS if not parts[part] > 0] == absent
    assert min(parts.values()) >= 0
