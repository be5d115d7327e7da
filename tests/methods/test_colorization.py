import logging

import pytest
import pytorch_lightning as pl
import torch
from kornia.color import rgb_to_lab
from PIL import Image
from pytorch_lightning.callbacks import Callback

from sslkit.backbones import ResNet9, Timm
from sslkit.cli.evaluate import score
from sslkit.dashboard import PictureSheets
from sslkit.data import ArrayDataset, DataModule, load
from sslkit.evaluation import protocols_of
from sslkit.methods.base import Batch
from sslkit.methods.colorization import Colorization
from sslkit.training import Optimizer, load_backbone, read_checkpoint
from sslkit.views import EvaluationView
from sslkit.views.colorization import ColorizationView
from sslkit.views.lab import gamut_bins, rebalancing, soft_encode

quiet = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def method(**options):
    torch.manual_seed(7)
    view = ColorizationView(32, normalize="half")
    optimizer = Optimizer(name="sgd", lr=0.05, warmup_epochs=1)
    return Colorization(ResNet9(4), view, optimizer, hidden_dim=8, **options)


def flat(*colours, size=8):
    """A data set of images of one colour each."""
    images = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None]
    return ArrayDataset(images.expand(-1, -1, size, size).clone())


def bin_of(*ab):
    return gamut_bins().tolist().index([float(x) for x in ab])


def fit(tmp_path, model, *callbacks, steps=6, ckpt_path=None, **options):
    pl.seed_everything(3, verbose=False)
    trainer = pl.Trainer(
        max_epochs=2,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        **options,
    )
    data = DataModule("shapes", limit=32, batch_size=8)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def test_objective_agrees_with_a_loop_over_pixels():
    model = method().eval()
    model.weights.copy_(torch.rand(261))
    grey, ab = torch.randn(2, 3, 32, 32), torch.rand(2, 2, 8, 8) * 100 - 50
    found = model.objective(Batch((grey,), ab, None, None))
    logits = model.head(model.backbone.feature_map(grey)).double()
    index, shares = soft_encode(ab, gamut_bins())
    losses, right = [], 0
    for n in range(2):
        for y in range(8):
            for x in range(8):
                log_p = logits[n, :, y, x].log_softmax(0)
                target = torch.zeros(261, dtype=torch.float64)
                for i, share in zip(index[n, :, y, x], shares[n, :, y, x], strict=True):
                    target[i] = share
                nearest = int(target.argmax())
                losses.append(-model.weights[nearest] * (target * log_p).sum())
                right += int(log_p.argmax()) == nearest
    assert found["loss"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert found["accuracy"].item() == pytest.approx(right / 128)


@pytest.mark.parametrize("size", [32, 40])
def test_logits_are_as_large_as_the_targets(size):
    model = Colorization(ResNet9(4), ColorizationView(size, stride=2), hidden_dim=8)
    (grey,), ab = model.view(torch.rand(2, 3, 50, 60))
    assert model.logits(grey).shape == (2, 261, *ab.shape[2:])


def test_prior_is_a_count_of_the_datas_colours():
    # Red is (80, 67) in ab, blue (79, -108), and grey in 1 of 4 images is no majority.
    data = flat((255, 0, 0), (255, 0, 0), (0, 0, 255), (90, 90, 90))
    model = method()
    torch.testing.assert_close(model.weights, torch.ones(261))
    before = torch.get_rng_state()
    model.prepare(data, 2)
    assert torch.equal(torch.get_rng_state(), before)
    expected = torch.zeros(261)
    expected[[bin_of(80, 70), bin_of(80, -110), bin_of(0, 0)]] = torch.tensor([0.5, 0.25, 0.25])
    torch.testing.assert_close(model.prior, expected)
    torch.testing.assert_close(model.weights, rebalancing(expected, gamut_bins()))
    plain = method(mix=1.0)
    plain.prepare(data, 2)
    torch.testing.assert_close(plain.weights, torch.ones(261))


def test_prior_of_real_images_counts_their_targets():
    data, model = load("shapes", "train", limit=150), method()  # in 2 parts
    model.prepare(data, 8)
    counts = torch.zeros(261)
    for image in data.images:
        ab = rgb_to_lab(image[None] / 255)[0, 1:].unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4))
        square = (ab.flatten(1).T[:, None] - gamut_bins()).square().sum(-1)
        counts += square.argmin(1).bincount(minlength=261)
    torch.testing.assert_close(model.prior, counts / counts.sum(), atol=1e-4, rtol=0)


def test_the_data_is_looked_at_once(monkeypatch):
    model = method()
    model.prepare(flat((255, 0, 0), (0, 0, 255)), 2)
    monkeypatch.setattr("sslkit.methods.colorization.rebalancing", None)
    model.prepare(flat((0, 255, 0), (0, 255, 0)), 2)
    assert model.prior[bin_of(80, 70)] == 0.5


@pytest.mark.parametrize(
    "images",
    [
        flat((255, 0, 0), (9, 9, 9), (60, 61, 62)).images,
        torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8),
    ],
    ids=["most", "one channel"],
)
def test_mostly_grey_data_is_refused(images):
    grey = 3 if images.shape[1] == 1 else 2
    message = f"^{grey} of the 3 images looked at are grey: colorization has nothing to learn"
    with pytest.raises(ValueError, match=message):
        method().prepare(ArrayDataset(images), 2)


def test_refused_before_the_first_step_of_a_fit(tmp_path):
    data = DataModule("shapes", limit=32, batch_size=8)
    data.dataset = ArrayDataset(load("shapes", "train", limit=32).images[:, :1])
    data.seed = 0
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="32 of the 32 images"):
        trainer.fit(method(), datamodule=data)
    assert trainer.global_step == 0


def test_few_grey_images_are_told_and_a_large_set_is_sampled(monkeypatch, caplog):
    monkeypatch.setattr("sslkit.methods.colorization.LOOKED_AT", 40)
    images = flat((9, 9, 9), (60, 61, 62), (60, 61, 63), (200, 0, 0)).images.repeat(30, 1, 1, 1)
    with (
        caplog.at_level(logging.INFO, logger="sslkit"),
        pytest.raises(ValueError, match="of the 40"),
    ):
        method().prepare(ArrayDataset(torch.cat([images, images * 0])), 2)
    assert caplog.text == ""
    method().prepare(flat((9, 9, 9), (255, 0, 0)), 2)  # half is no majority
    with caplog.at_level(logging.INFO, logger="sslkit"):
        method().prepare(ArrayDataset(images[3:8]), 2)
    assert "2 of the 5 images looked at are grey" in caplog.text


@quiet
def test_a_resumed_run_goes_on_with_the_same_losses_and_prior(tmp_path):
    class Losses(Callback):
        def __init__(self):
            self.values = []

        def on_train_batch_end(self, trainer, module, outputs, *_):
            self.values.append(outputs["loss"].item())
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole, tail = Losses(), Losses()
    model = method()
    fit(tmp_path, model, whole)
    saved = read_checkpoint(tmp_path / "middle.ckpt")
    assert saved["sslkit"]["grayscale"] is True
    assert torch.equal(saved["state_dict"]["prior"], model.prior)
    # as if the data had changed meanwhile: the run keeps the prior it began with
    state = saved["state_dict"]
    state["prior"], state["weights"] = state["prior"].flip(0), state["weights"].flip(0)
    torch.save(saved, tmp_path / "flipped.ckpt")
    fit(tmp_path, method(), tail, ckpt_path=tmp_path / "middle.ckpt")
    assert tail.values == whole.values[3:]
    again = method()
    fit(tmp_path, again, ckpt_path=tmp_path / "flipped.ckpt")
    assert torch.equal(again.prior, model.prior.flip(0))
    assert torch.equal(again.weights, model.weights.flip(0))
    _, card = load_backbone(tmp_path / "middle.ckpt")
    assert card["grayscale"] is True


@quiet
def test_the_command_line_evaluates_it_in_grey(tmp_path, monkeypatch):
    views = []

    def evaluate(backbone, view, *args, **options):
        views.append(view)
        return [{"data": "shapes", "n_train": 1, "n_test": 1, "protocols": {}, "failed": {}}]

    monkeypatch.setattr("sslkit.cli.evaluate.evaluate_layers", evaluate)
    trainer = fit(tmp_path, method(), steps=1)
    trainer.save_checkpoint(tmp_path / "grey.ckpt")
    knn = protocols_of(["knn"])
    score([str(tmp_path / "grey.ckpt"), "random"], ["shapes"], knn, out=str(tmp_path))
    score(["random"], ["shapes"], knn, out=str(tmp_path))
    assert [view.grayscale for view in views] == [True, True, False]


def test_evaluated_in_grey():
    model = method()
    assert model.card()["grayscale"] is True
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = EvaluationView(32, "half", grayscale=True)(images)
    assert torch.equal(model.eval_view(images), expected)


def test_the_papers_temperature():
    assert method().temperature == 0.38


def test_the_head_stands_on_a_map_of_other_channels_than_the_features():
    backbone = Timm("mobilenetv3_small_050").train()
    model = Colorization(backbone, ColorizationView(32, normalize="half"), hidden_dim=8)
    channels = model.head[0].in_channels
    assert channels == backbone.feature_map(torch.zeros(2, 3, 32, 32)).shape[1]
    assert channels != backbone.feature_dim
    assert backbone.training
    assert model.logits(torch.rand(2, 3, 32, 32)).shape[-2:] == (8, 8)


def test_pictures_show_lightness_prediction_and_truth():
    model = method(temperature=1e-3).eval()
    images = torch.randint(40, 200, (2, 3, 40, 40), dtype=torch.uint8)
    with torch.no_grad():
        torch.nn.init.zeros_(model.head[-1].weight)
        model.head[-1].bias.copy_(torch.nn.functional.one_hot(torch.tensor(bin_of(10, 0)), 261))
        columns = model.pictures(images)["colours"]
    assert list(columns) == ["grey", "predicted", "true"]
    assert all(column.shape == (2, 3, 32, 32) for column in columns.values())
    true = EvaluationView(32, None)(images)
    torch.testing.assert_close(columns["true"], true)
    light = rgb_to_lab(true)[:, 0]
    for name, ab in (("grey", (0.0, 0.0)), ("predicted", (10.0, 0.0))):
        lab = rgb_to_lab(columns[name])
        torch.testing.assert_close(lab[:, 0], light, atol=0.02, rtol=0)
        expected = torch.tensor(ab)[None, :, None, None].expand(2, 2, 32, 32)
        torch.testing.assert_close(lab[:, 1:], expected, atol=0.05, rtol=0)


@quiet
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
def test_trains_and_draws_in_every_precision(tmp_path, precision):
    model = method()
    fit(tmp_path, model, PictureSheets(tmp_path), precision=precision, steps=2)
    assert all(p.isfinite().all() for p in model.parameters())
    for name in ("colours", "neighbours", "views"):
        Image.open(tmp_path / "pictures" / f"{name}.png").verify()


def test_learns_the_colour_that_lightness_tells():
    """Dark images are blue and light ones yellow, which no constant gets right."""
    torch.manual_seed(0)
    shades = torch.tensor([[20, 20, 120], [230, 220, 90]], dtype=torch.uint8)
    images = shades.repeat(32, 1)[:, :, None, None].expand(-1, -1, 32, 32).clone()
    model = method()
    model.prepare(ArrayDataset(images), 8)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(25):
        optimizer.zero_grad()
        views, ab = model.view.manual_seed(1)(images[:16])
        found = model.objective(Batch(views, ab, None, None))
        found["loss"].backward()
        optimizer.step()
    assert found["accuracy"] > 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": 2}, "mix must be between 0 and 1, not 2"),
        ({"temperature": 0}, "temperature must be a finite number above 0"),
        ({"hidden_dim": 0}, "hidden_dim must be at least 1, not 0"),
    ],
)
def test_bad_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        Colorization(ResNet9(4), ColorizationView(32), **options)
