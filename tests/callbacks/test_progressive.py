from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from sslkit.backbones import ResNet9
from sslkit.callbacks import ProgressiveResizing
from sslkit.data import DataModule
from sslkit.methods import SimCLR
from sslkit.training import Optimizer
from sslkit.views import (
    Augment,
    ColorizationView,
    EvaluationView,
    RandAugmentView,
    RelativePositionView,
    RotationView,
    SimCLRViews,
    SwAVViews,
)

SIZES = [8, 8, 12, 12, 16, 16, 16, 16]  # of the batches of two epochs, with resizing()


def resizing():
    return ProgressiveResizing([8, 12], share=0.5)


class After(pl.Callback):
    """Keeps the losses, and does something after a step."""

    def __init__(self, step=None, do=None):
        self.losses, self.step, self.do = [], step, do

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.losses.append(outputs["loss"].item())
        if trainer.global_step == self.step:
            self.do(trainer, module)


class Run:
    """A method with views of 16 pixels, and what its backbone is given in training."""

    def __init__(self):
        pl.seed_everything(3, verbose=False)
        view = SimCLRViews(16, blur=False, normalize="half")
        optimizer = Optimizer(name="adamw", lr=0.01, lr_scaling="none", warmup_epochs=0)
        self.method, self.sizes = SimCLR(ResNet9(2), view, optimizer), []
        self.method.backbone.register_forward_pre_hook(self.note)

    def note(self, backbone, given):
        if backbone.training:
            self.sizes.append(given[0].shape[-1])

    def fit(self, *callbacks, ckpt_path=None, **options):
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
            **options,
        )
        data = DataModule("shapes", limit=64, batch_size=16)
        trainer.fit(self.method, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return self

    def made(self):
        """The sizes of the views that the method makes now."""
        return [view.shape[-1] for view in self.method.view(torch.rand(2, 3, 20, 20))]


quiet = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@quiet
@pytest.mark.parametrize("accumulated", [1, 2])
def test_each_step_has_its_size_and_full_size_is_back_in_the_end(accumulated):
    run = Run().fit(resizing(), accumulate_grad_batches=accumulated)
    assert run.sizes == SIZES
    assert run.made() == [16, 16]


@quiet
def test_evaluation_and_the_card_keep_the_full_size_meanwhile():
    run, seen = Run(), []

    def look(trainer, method):
        evaluated = method.eval_view(torch.rand(2, 3, 20, 20))
        seen.extend([*run.made(), evaluated.shape[-1], method.card()["size"]])

    run.fit(resizing(), After(1, look))
    assert seen == [8, 8, 16, 16]
    assert run.sizes == SIZES


@quiet
@pytest.mark.parametrize(("error", "raised"), [(OSError, OSError), (KeyboardInterrupt, SystemExit)])
def test_full_size_is_back_after_an_exception(error, raised):
    run = Run()

    def fail(trainer, method):
        assert run.made() == [12, 12]
        raise error

    with pytest.raises(raised):
        run.fit(resizing(), After(3, fail))
    assert run.sizes == SIZES[:3]
    assert run.made() == [16, 16]


@quiet
def test_full_size_is_back_where_a_run_ends_early():
    run = Run()

    def stop(trainer, method):
        assert run.made() == [12, 12]
        trainer.should_stop = True

    run.fit(resizing(), After(3, stop), min_steps=1)
    assert len(run.sizes) < len(SIZES)
    assert run.made() == [16, 16]


@quiet
@pytest.mark.parametrize("step", [3, 4])  # in the middle of a size, between two
def test_a_resumed_run_goes_on_with_the_same_sizes_and_losses(tmp_path, step):
    path = tmp_path / "middle.ckpt"
    first = After(step, lambda trainer, _: trainer.save_checkpoint(path))
    whole = Run().fit(resizing(), first)
    rest = After()
    resumed = Run().fit(resizing(), rest, ckpt_path=path)
    assert resumed.sizes == SIZES[step:]
    assert rest.losses == first.losses[step:]
    ours, theirs = resumed.method.state_dict(), whole.method.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@quiet
def test_the_sizes_change_the_run_and_the_callback_may_be_used_again():
    callback, plain, small = resizing(), After(), After()
    Run().fit(plain)
    Run().fit(callback, small)
    assert all(a != b for a, b in zip(plain.losses, small.losses, strict=True))
    again = After()
    run = Run().fit(callback, again)
    assert (run.sizes, again.losses) == (SIZES, small.losses)


def begin(callback, view, steps=4):
    """Training begins with a view; returns what comes at each step."""
    trainer = SimpleNamespace(estimated_stepping_batches=steps, global_step=0)
    module = SimpleNamespace(view=view, backbone=torch.nn.Identity())
    callback.on_train_start(trainer, module)

    def step(number):
        trainer.global_step = number
        callback.on_train_batch_start(trainer, module, None, 0)
        return view.manual_seed(0)(torch.rand(2, 3, 40, 40))

    return step


def test_views_of_several_sizes_shrink_by_the_same_factor():
    callback = ProgressiveResizing([1, 20], share=0.5)
    step = begin(callback, SwAVViews(32, local_size=12, local_views=2, normalize=None))
    for augment in callback._full:
        del augment.steps[-1]  # the blur, for which a pixel is too small
    found = [[view.shape[-1] for view in step(number)] for number in range(4)]
    assert found[0] == [1, 1, 1, 1]  # 12 / 32 of a pixel is one at least
    assert found[1] == [20, 20, 8, 8]  # 20 / 32 of 12 is 7.5
    assert found[2] == found[3] == [32, 32, 12, 12]


@pytest.mark.parametrize("kind", [ColorizationView, RandAugmentView, RotationView])
def test_any_view_that_crops_will_do(kind):
    step = begin(ProgressiveResizing([16], share=0.5), kind(32))
    for number, size in ((0, 16), (1, 16), (2, 32)):
        made = step(number)
        views = getattr(made, "views", [made])
        assert [view.shape[-1] for view in views] == [size]


def test_the_steps_of_each_size_are_counted_by_hand():
    sizes = [ProgressiveResizing([8, 16], share=0.7).size_at(step, 10, 32) for step in range(10)]
    assert sizes == [8] * 4 + [16] * 3 + [32] * 3  # 3.5 and 7 steps are the borders
    sizes = [ProgressiveResizing([9], share=0.01).size_at(step, 3, 32) for step in range(3)]
    assert sizes == [9, 32, 32]
    sizes = [ProgressiveResizing([8, 16], share=0.9).size_at(step, 3, 32) for step in range(3)]
    assert sizes == [8, 16, 32]  # the last is whole
    assert ProgressiveResizing([8]).size_at(0, 1, 32) == 32


def test_a_size_that_the_backbone_cannot_take_is_refused():
    module = SimpleNamespace(view=SimCLRViews(32), backbone=ResNet9(2))
    ProgressiveResizing([8]).check(module)
    with pytest.raises(ValueError, match="ResNet9 cannot take views of 7 pixels: "):
        ProgressiveResizing([8, 7]).check(module)
    assert module.backbone.training


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": []},
        {"sizes": [0]},
        {"sizes": [16, -1]},
        {"share": 0},
        {"share": 1},
        {"share": -0.5},
        {"share": float("nan")},
    ],
)
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="one size or more of at least 1 pixel and a share"):
        ProgressiveResizing(**options)


@pytest.mark.parametrize("sizes", [[16], [8, 17]])
@quiet
def test_a_size_that_is_not_below_the_views_ends_the_run_at_its_start(sizes):
    run = Run()
    with pytest.raises(ValueError, match=r"takes sizes below the view's 16, not \[.*1[67]\]"):
        run.fit(ProgressiveResizing(sizes))
    assert run.sizes == []
    assert run.made() == [16, 16]


@pytest.mark.parametrize(
    "view", [EvaluationView(32), RelativePositionView(32, patch=8, gap=2, jitter=1)]
)
def test_a_view_without_random_crops_is_refused(view):
    name = type(view).__name__
    with pytest.raises(ValueError, match=f"a view of random crops, not {name}"):
        begin(ProgressiveResizing([16]), view)


@pytest.mark.parametrize("size", [8, 20, 33])
def test_a_resized_augment_is_a_fresh_one_of_that_size(size):
    options = {
        "scale": (0.2, 1.0),
        "jitter": (0.4, 0.4, 0.4, 0.1),
        "grayscale": 0.2,
        "solarize": 0.3,
        "normalize": ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
    }
    images, made = torch.rand(16, 3, 40, 50), []
    resized = Augment(32, **options)
    resized(images)
    resized.resize(size)
    for augment in (resized, Augment(size, **options)):
        torch.manual_seed(1)
        made.append(augment(images))
    assert made[0].shape == (16, 3, size, size)
    assert torch.equal(*made)
    resized.resize(32)
    torch.manual_seed(2)
    back = resized(images)
    torch.manual_seed(2)
    assert torch.equal(back, Augment(32, **options)(images))


def test_a_blur_keeps_its_width_in_pixels():
    augment = Augment(40, blur=1.0)
    augment.resize(20)
    assert augment(torch.rand(4, 3, 40, 40)).shape == (4, 3, 20, 20)
    (blur,) = (step for step in augment.steps if "kernel_size" in step.flags)
    assert blur.flags["kernel_size"] == 5  # a tenth of 40, and the one in the middle
