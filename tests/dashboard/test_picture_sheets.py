import os
from typing import NamedTuple

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from torch import nn

from sslkit.dashboard import PictureSheets

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Squares(torch.utils.data.Dataset):
    classes = ("dark", "light")

    def __init__(self, n=40, size=8, labelled=True):
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randint(0, 256, (n, 3, size, size), generator=generator).byte()
        self.labels = [i % 2 if labelled else -1 for i in range(n)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


class Data(pl.LightningDataModule):
    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.dataset, batch_size=8, shuffle=True)


class Made(NamedTuple):
    views: tuple
    targets: torch.Tensor


class Noise(nn.Module):
    """A view that uses every random source."""

    def __init__(self, targets):
        super().__init__()
        self.targets = targets

    def forward(self, images):
        views = tuple(images / 255 - 0.5 + torch.rand(images.shape) / 10 for _ in range(2))
        np.random.rand()  # noqa: NPY002 - the global state is what is tested
        return Made(views, torch.zeros(len(images))) if self.targets else views

    def denormalize(self, images):
        return images + 0.5


class Fake(pl.LightningModule):
    def __init__(self, targets=False):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(5)
        )
        self.backbone[1].momentum = None  # the number of batches counts as well
        self.backbone(torch.zeros(2, 3, 8, 8))
        self.view = Noise(targets)

    def eval_view(self, images):
        return images / 255 - 0.5

    def pictures(self, images):
        """Uses every random source, and BatchNorm."""
        np.random.rand()  # noqa: NPY002 - the global state is what is tested
        noisy = images / 255 + torch.rand(images.shape) / 10
        assert not any(module.training for module in self.modules())
        assert not self.backbone(noisy).requires_grad
        return {"own": {"plain": images, "noisy": noisy}}

    def training_step(self, batch, batch_idx):
        made = self.view(batch[0])
        return self.backbone(getattr(made, "views", made)[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(callbacks, dataset=None, *, targets=False, logger=False, epochs=2, **kwargs):
    pl.seed_everything(0, verbose=False)
    module = Fake(targets)
    module.backbone[2].eval()  # a frozen part must stay frozen
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=logger,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )
    trainer.fit(module, Data(dataset or Squares()))
    return module


@pytest.mark.parametrize("targets", [False, True])
def test_training_is_bit_identical_with_and_without(tmp_path, targets):
    plain = fit([], targets=targets)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    drawn = fit([PictureSheets(tmp_path, every_n_epochs=1)], targets=targets)
    assert torch.equal(torch.get_rng_state(), after[0])
    assert np.random.get_state()[1].tolist() == after[1]  # noqa: NPY002
    assert all(value.isfinite().all() for value in plain.state_dict().values())
    for name, value in plain.state_dict().items():
        assert torch.equal(value, drawn.state_dict()[name]), name
    assert [m.training for m in plain.modules()] == [m.training for m in drawn.modules()]
    names = ("embedding", "neighbours", "own", "views")
    assert sorted(os.listdir(tmp_path / "pictures")) == [f"{name}.png" for name in names]
    for name in names:
        Image.open(tmp_path / "pictures" / f"{name}.png").verify()


PICTURES = ("own", "neighbours", "embedding")


class Counting(PictureSheets):
    def _save(self, trainer, name, sheet):
        self.saved = [*getattr(self, "saved", []), (trainer.current_epoch, name)]


@pytest.mark.parametrize(
    ("every", "epochs"), [(0, [3]), (1, [0, 1, 2]), (2, [1, 3]), (3, [2])], ids=str
)
def test_pictures_come_in_their_epochs_and_once_at_the_end(tmp_path, every, epochs):
    callback = Counting(tmp_path, every_n_epochs=every)
    fit([callback], epochs=3)
    drawn = [(epoch, name) for epoch in epochs for name in PICTURES]
    assert callback.saved == [(0, "views"), *drawn]


@pytest.mark.parametrize(
    ("n", "pictures"),
    [(1, ["own.png", "views.png"]), (2, ["neighbours.png", "own.png", "views.png"])],
)
def test_tiny_unlabelled_sets(tmp_path, n, pictures):
    fit([PictureSheets(tmp_path)], Squares(n, labelled=False), epochs=1)
    assert sorted(os.listdir(tmp_path / "pictures")) == pictures


def test_wandb_is_shown_the_pictures(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(WandbLogger, "log_image", lambda self, *a, **k: shown.append((a[0], k)))
    logger = WandbLogger.__new__(WandbLogger)
    for name in ("log_hyperparams", "log_graph", "save", "finalize", "log_metrics"):
        monkeypatch.setattr(WandbLogger, name, lambda self, *a, **k: None)
    monkeypatch.setattr(WandbLogger, "save_dir", str(tmp_path))
    monkeypatch.setattr(WandbLogger, "name", "x")
    monkeypatch.setattr(WandbLogger, "version", "y")
    monkeypatch.setattr(WandbLogger, "experiment", None)
    fit([PictureSheets(tmp_path)], logger=logger)
    steps = {"views": 0, **dict.fromkeys(PICTURES, 10)}
    assert shown == [(f"pictures/{name}", {"step": step}) for name, step in steps.items()]


def test_other_ranks_and_dry_runs_draw_nothing(tmp_path, monkeypatch):
    fit([PictureSheets(tmp_path)], fast_dev_run=1)
    monkeypatch.setattr(pl.Trainer, "is_global_zero", False)
    fit([PictureSheets(tmp_path, every_n_epochs=1)], epochs=1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("bad", [{"every_n_epochs": -1}, {"pool": 0}, {"images": 0}])
def test_bad_numbers(bad):
    with pytest.raises(ValueError, match="at least 0, the others 1"):
        PictureSheets("runs/x", **bad)
