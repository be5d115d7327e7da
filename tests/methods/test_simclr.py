import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from sslkit.backbones import ResNet9
from sslkit.callbacks import OnlineSignals
from sslkit.dashboard import PictureSheets
from sslkit.data import DataModule, load
from sslkit.losses import nt_xent
from sslkit.methods import Batch, SimCLR
from sslkit.training import Optimizer, load_backbone, read_checkpoint
from sslkit.views import SimCLRViews, SupervisedView


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        self.values.append(outputs["loss"].item())


def method():
    torch.manual_seed(7)
    view = SimCLRViews(32, jitter=0.5, blur=False, normalize="half")
    return SimCLR(ResNet9(4), view, Optimizer(name="sgd", lr=0.1, warmup_epochs=1))


def fit(tmp_path, *callbacks, model=None, ckpt_path=None, steps=24, **options):
    pl.seed_everything(3, verbose=False)
    losses = Losses()
    trainer = pl.Trainer(
        max_epochs=4,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[losses, *callbacks],
        **options,
    )
    data = DataModule("shapes", limit=64, batch_size=8)
    trainer.fit(model or method(), datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return losses.values


def test_objective_is_nt_xent_of_the_projections():
    model = method().eval()
    views = torch.randn(2, 6, 3, 32, 32)
    loss = model.objective(Batch(tuple(views), None, torch.zeros(6), torch.arange(6)))["loss"]
    z0, z1 = (model.projector(model.backbone(view)) for view in views)
    torch.testing.assert_close(loss, nt_xent(z0, z1, temperature=0.5))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("stop", [3, 8, 13])
def test_the_next_losses_equal_those_of_an_uninterrupted_run(tmp_path, stop):
    class Save(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == stop:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole = fit(tmp_path, Save())
    # The online signals must not disturb what follows them.
    signals = OnlineSignals(bank=20, queries=10)
    tail = fit(tmp_path, signals, ckpt_path=tmp_path / "middle.ckpt")
    assert tail == whole[stop:]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("limit", "length"), [(1.0, 8), (3, 3)])
def test_so_do_those_after_an_epochs_own_checkpoint(tmp_path, limit, length):
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    whole = fit(tmp_path, saver, steps=-1, limit_train_batches=limit)
    path = tmp_path / "epoch=1.ckpt"
    tail = fit(tmp_path, ckpt_path=path, steps=-1, limit_train_batches=limit)
    assert len(whole) == 4 * length
    assert tail == whole[2 * length :]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_checkpoint_is_safe_and_gives_the_backbone_back(tmp_path):
    model = method()
    fit(tmp_path, ModelCheckpoint(tmp_path, "x"), model=model, steps=8)
    assert read_checkpoint(tmp_path / "x.ckpt")["sslkit"]["method"] == "SimCLR"
    backbone, card = load_backbone(tmp_path / "x.ckpt")
    assert (card["size"], card["normalize"]) == (32, "half")
    images = torch.randn(2, 3, 32, 32)
    weights = model.backbone.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in backbone.state_dict().items())
    torch.testing.assert_close(backbone.eval()(images), model.backbone.eval()(images))


def test_bad_temperature():
    with pytest.raises(ValueError, match="above 0, not -1"):
        SimCLR(ResNet9(4), SimCLRViews(32), temperature=-1)


def test_more_or_fewer_views_than_two_are_refused_before_the_first_step():
    model = SimCLR(ResNet9(4), SupervisedView(32))
    with pytest.raises(ValueError, match=r"SimCLR takes 2 view\(s\).*SupervisedView makes 1"):
        model.prepare(load("shapes", "train", limit=4), 4)
    with pytest.raises(ValueError, match="at least 2 images"):
        method().prepare(load("shapes", "train", limit=4), 1)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_schedule_counts_steps_and_images_of_a_whole_step():
    rates = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    model = method()
    model.optimizer = Optimizer(name="sgd", lr=0.256, warmup_epochs=1)
    trainer = pl.Trainer(
        max_epochs=3,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Rates()],
    )
    trainer.fit(model, datamodule=DataModule("shapes", limit=64, batch_size=8))
    # 8 batches are 4 steps an epoch, of 16 images: a peak of 0.256 * 16 / 256, 12 steps in all.
    steps = rates[::2]
    peak = 0.016
    assert steps[:4] == pytest.approx([peak * i / 4 for i in (1, 2, 3, 4)])
    cosine = [peak * 0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert steps[4:] == pytest.approx(cosine)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_weights_in_bfloat16_train(tmp_path):
    model = method()
    trainer = pl.Trainer(
        max_epochs=1,
        precision="bf16-true",
        callbacks=[OnlineSignals(), PictureSheets(tmp_path)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=DataModule("shapes", limit=16, batch_size=8))
    assert next(model.parameters()).dtype == torch.bfloat16
