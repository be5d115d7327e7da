import json
import math
from dataclasses import asdict
from io import BytesIO
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from torchvision.transforms.v2 import functional as tv

from sslkit.backbones import Backbone, ResNet9
from sslkit.data import ArrayDataset, shapes
from sslkit.data.images import LabelledImages
from sslkit.evaluation.finetune import (
    FINETUNE,
    SEMI1,
    SEMI10,
    Recipe,
    SemiRecipe,
    budget,
    cut,
    finetune,
    semi,
    stratified,
)
from sslkit.evaluation.tuning import _loss, batch_norm_momentum
from sslkit.views import EvaluationView

OPTIONS = {"size": 8, "normalize": None, "metric": "accuracy", "classes": 2}
QUICK = Recipe(steps=4, batch_size=8, rates=(0.01, 0.1), decays=(1e-3, 0.0))


class Tiny(Backbone):
    """Keeps what it was shown, and the momentum of its BatchNorm."""

    feature_dim = 4
    trained_on: ClassVar[list[torch.Tensor]] = []
    scored_on: ClassVar[list[torch.Tensor]] = []
    momenta: ClassVar[set[float]] = set()

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.1))

    def feature_map(self, images):
        (self.trained_on if self.training else self.scored_on).append(images.clone())
        self.momenta.add(self.layer[1].momentum)
        return self.layer(images)

    def init_args(self):
        return {}


@pytest.fixture(autouse=True)
def forget():
    for kept in (Tiny.trained_on, Tiny.scored_on, Tiny.momenta):
        kept.clear()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture
def steps(monkeypatch):
    """Each step of SGD: the learning rate, and the decay of weights and of biases."""
    taken, step = [], torch.optim.SGD.step

    def record(self, *args, **kwargs):
        weights, biases = self.param_groups
        taken.append((weights["lr"], weights["weight_decay"], biases["weight_decay"]))
        assert weights["nesterov"]
        assert weights["momentum"] == 0.9
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", record)
    return taken


def two_colours(n, seed=0, side=8):
    """Dark and bright noise in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    noise = torch.randint(0, 100, (n, 3, side, side), generator=generator)
    return ArrayDataset((noise + 100 * labels[:, None, None, None]).byte(), labels)


def pictures(folder, n=12, width=60, height=20):
    """Files three times as wide as high: red, then black, then blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 3, 0] = pixels[:, -width // 3 :, 2] = 255
    paths = [folder / f"{i}.png" for i in range(n)]
    for path in paths:
        Image.fromarray(pixels).save(path)
    return LabelledImages(paths, torch.arange(n) % 2, ["a", "b"])


def test_the_grid_is_the_papers():
    rates = [1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2, 10**-1.5, 1e-1]
    decays = [1e-6, 10**-5.5, 1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3, 0]
    assert FINETUNE.rates == pytest.approx(rates, rel=1e-5)
    assert FINETUNE.decays == pytest.approx(decays, rel=1e-5)
    assert (FINETUNE.steps, FINETUNE.batch_size, FINETUNE.momentum) == (20_000, 256, 0.9)
    assert (SEMI1.fraction, SEMI1.epochs, SEMI10.fraction, SEMI10.epochs) == (0.01, 60, 0.1, 30)
    for recipe in (FINETUNE, SEMI10):
        plain = json.loads(json.dumps(asdict(recipe)))
        again = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        assert type(recipe)(**again) == recipe


def test_a_budget_says_what_it_cuts():
    assert cut(FINETUNE) is None
    assert budget(FINETUNE) == FINETUNE == budget(FINETUNE, steps=30_000, grid=(9, 9))
    one = budget(FINETUNE, grid=(1, 1))
    assert (one.rates, one.decays) == ((0.00316228,), (1e-4,))
    assert cut(one) == "1 x 1 of 7 x 8"
    three = budget(FINETUNE, steps=500, grid=(3, 7))
    assert three.rates == (0.000316228, 0.00316228, 0.0316228)
    assert len(set(three.decays)) == 7
    assert cut(three) == "500 of 20,000 steps, 3 x 7 of 7 x 8"
    assert budget(SEMI10, steps=7, grid=(1, 1)) == SemiRecipe(fraction=0.1, epochs=30, steps=7)


def test_steps_by_hand(tiny, steps):
    data = two_colours(40)
    scores = finetune(tiny, data, data, recipe=QUICK, **OPTIONS)
    assert len(steps) == 5 * 4  # the grid of 2 x 2, then the best
    falling = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    for i, (lr, decay) in enumerate([(0.01, 1e-3), (0.01, 0), (0.1, 1e-3), (0.1, 0)]):
        taken = steps[4 * i : 4 * i + 4]
        assert [lr for lr, _, _ in taken] == pytest.approx([lr * part for part in falling])
        assert [lr * weights for _, weights, _ in taken] == pytest.approx([decay] * 4)
        assert {biases for _, _, biases in taken} == {0}
    assert steps[-4][:2] == (scores["lr"], scores["weight_decay"])
    # 36 images of 40, then all, in batches of 8: epochs of less than 100 steps.
    assert Tiny.momenta == {0.1}
    assert scores["steps"] == 4
    assert scores["cut"] == "4 of 20,000 steps, 2 x 2 of 7 x 8"


def test_momentum_of_batch_norm_by_hand(tiny):
    kept = {1: 0.9, 100: 0.9, 200: 0.95, 1000: 0.99}  # max(1 - 10 / s, 0.9), TensorFlow's
    assert {s: 1 - batch_norm_momentum(s) for s in kept} == pytest.approx(kept)
    data = two_colours(300, side=1)
    recipe = Recipe(steps=1, batch_size=2, rates=(0.01,), decays=(0.0,))
    finetune(tiny, data, data, recipe=recipe, **{**OPTIONS, "size": 1})
    assert sorted(Tiny.momenta) == pytest.approx([10 / 150, 10 / 135])


def test_training_is_nesterovs(monkeypatch):
    """Against a loop in float64, with images that neither crops nor flips change."""

    class Linear(Backbone):
        feature_dim = 2

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def feature_map(self, images):
            return self.conv(images)

        def init_args(self):
            return {}

    torch.manual_seed(0)
    backbone = Linear()
    images = torch.randint(0, 256, (10, 3, 1, 1)).byte().expand(-1, -1, 4, 4)
    data = ArrayDataset(images, torch.arange(10) % 2)
    recipe = Recipe(steps=5, batch_size=10, rates=(0.2,), decays=(0.04,), min_scale=1.0)
    nets = []
    monkeypatch.setattr("sslkit.evaluation.tuning.Tuner.score", lambda s, net, *a: nets.append(net))
    with pytest.raises(ValueError, match="diverged at each of 1 pairs"):
        finetune(backbone, data, data, recipe=recipe, **{**OPTIONS, "size": 4})
    monkeypatch.setattr(
        "sslkit.evaluation.tuning.Tuner.score", lambda s, net, *a: nets.append(net) or 50.0
    )
    finetune(backbone, data, data, recipe=recipe, **{**OPTIONS, "size": 4})

    x = images[:, :, 0, 0].double() / 255
    first = backbone.conv.weight.detach().double().view(2, 3), backbone.conv.bias.detach().double()
    w = [*first, torch.zeros(2, 2).double(), torch.zeros(2).double()]
    v = [torch.zeros_like(p) for p in w]
    for t in range(5):
        w = [p.clone().requires_grad_() for p in w]
        logits = (x @ w[0].T + w[1]) @ w[2].T + w[3]
        loss = -logits.log_softmax(1)[torch.arange(10), data.labels].mean()
        lr = 0.2 * (1 + math.cos(math.pi * t / 5)) / 2
        for i, gradient in enumerate(torch.autograd.grad(loss, w)):
            g = gradient + (0.2 * w[i].detach() if w[i].ndim > 1 else 0)  # 0.04 / 0.2
            v[i] = 0.9 * v[i] + g
            w[i] = w[i].detach() - lr * (g + 0.9 * v[i])
    net = nets[-1]
    found = [net[0].conv.weight.flatten(1), net[0].conv.bias, net[1].weight, net[1].bias]
    for ours, expected in zip(found, w, strict=True):
        torch.testing.assert_close(ours.detach().double(), expected, rtol=1e-4, atol=1e-6)


def test_crops_are_of_the_whole_file(tiny, tmp_path):
    data = pictures(tmp_path)
    recipe = Recipe(steps=2, batch_size=16, rates=(0.01,), decays=(0.0,))
    finetune(tiny, data, data, recipe=recipe, workers=0, **OPTIONS)
    red, _, blue = torch.cat(Tiny.trained_on).flatten(2).amin(2).T
    # Crops that lie in the left third, and in the right: outside the square in the centre.
    assert (red == 1).any()
    assert (blue == 1).any()
    assert all(images.shape == (16, 3, 8, 8) for images in Tiny.trained_on)
    assert torch.cat(Tiny.scored_on).max() < 0.1  # the square alone, and the filter's reach


def test_crops_of_arrays_flip_and_differ(tiny):
    image = torch.arange(8).mul(30) + torch.randint(0, 20, (3, 8, 8))  # brighter to the right
    data = ArrayDataset(image.byte().expand(20, 3, 8, 8), torch.arange(20) % 2)
    finetune(tiny, data, data, recipe=QUICK, **OPTIONS)
    runs = torch.stack(Tiny.trained_on).view(5, 32, 3, 8, 8)  # 4 pairs and the last, 4 x 8 views
    assert all(torch.equal(runs[0], run) for run in runs[1:4])  # pairs see the same crops
    mirrored = runs[0, :, 0, 0, 0] > runs[0, :, 0, 0, -1]
    assert 8 < mirrored.sum() < 24
    assert len(runs[0].flatten(1).unique(dim=0)) > 24


def test_what_is_scored(tiny):
    data = two_colours(20)
    options = {**OPTIONS, "normalize": "half"}
    finetune(tiny, data, data, recipe=QUICK, **options)
    assert torch.equal(Tiny.scored_on[-1], EvaluationView(8, "half")(data.images))  # native
    Tiny.scored_on.clear()
    images = torch.randint(0, 256, (20, 3, 32, 48)).byte()
    data = ArrayDataset(images, torch.arange(20) % 2)
    finetune(tiny, data, data, recipe=QUICK, **{**OPTIONS, "size": 14})
    resized = tv.resize(images / 255, [16], tv.InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(Tiny.scored_on[-1], resized[:, :, 1:15, 5:19].clamp(0, 1))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_stratified_counts(share):
    sizes = [1, 2, 7, 30, 100]
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    labels = labels[torch.randperm(140, generator=torch.Generator().manual_seed(0))]
    wanted = [max(1, round(share * n)) for n in sizes]
    assert labels[stratified(labels, 5, share, seed=0)].bincount(minlength=5).tolist() == wanted
    spared = [min(k, n - 1) for k, n in zip(wanted, sizes, strict=True)]
    held = stratified(labels, 5, share, seed=0, spare=True)
    assert labels[held].bincount(minlength=5).tolist() == spared
    assert not torch.equal(held, stratified(labels, 5, share, seed=1, spare=True))
    assert torch.equal(held, stratified(labels, 5, share, seed=0, spare=True))


def test_stratified_of_many_labels():
    generator = torch.Generator().manual_seed(0)
    rates = torch.tensor([0.05, 0.1, 0.3, 0.6])
    labels = (torch.rand(200, 4, generator=generator) < rates).long()
    labels[labels.sum(1) == 0, 3] = -1
    held = stratified(labels, 4, 0.1, seed=0, spare=True)
    kept, drawn = ((labels[part] == 1).sum(0) for part in (~held, held))
    assert (kept >= 1).all()
    assert (drawn >= ((labels == 1).sum(0) * 0.1).round()).all()
    assert held.sum() < 40


def test_backbone_and_generators_stay_as_they_are(tiny):
    tiny.eval()
    tiny.layer[2].train()
    tiny.requires_grad_(False)
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    state, data = torch.get_rng_state(), two_colours(20)
    first = finetune(tiny, data, data, recipe=QUICK, **OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in tiny.state_dict().items())
    assert [m.training for m in tiny.layer] == [False, False, True]
    assert tiny.layer[1].momentum == 0.1
    assert not any(p.requires_grad or p.grad is not None for p in tiny.parameters())
    shown = [images.clone() for images in Tiny.trained_on]
    Tiny.trained_on.clear()
    torch.manual_seed(5)
    assert finetune(tiny, data, data, recipe=QUICK, **OPTIONS) == first
    assert all(torch.equal(a, b) for a, b in zip(Tiny.trained_on, shown, strict=True))
    semi(tiny, data, data, recipe=budget(SEMI10, steps=2), **OPTIONS)
    assert all(torch.equal(v, before[k]) for k, v in tiny.state_dict().items())


def test_runs_of_one_seed_end_in_the_same_bits(tiny, monkeypatch):
    nets = []
    monkeypatch.setattr(
        "sslkit.evaluation.tuning.Tuner.score", lambda s, net, *a: nets.append(net) or 50.0
    )
    data = two_colours(20)
    for seed in (0, 0, 1):
        recipe = Recipe(steps=4, batch_size=8, rates=(0.1,), decays=(0.0,), seed=seed)
        finetune(tiny, data, data, recipe=recipe, **OPTIONS)
    first, again, other = (net.state_dict() for net in nets[1::2])
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    assert not all(torch.equal(v, other[k]) for k, v in first.items())


def test_finished_pairs_are_not_trained_again(tiny, steps, tmp_path, monkeypatch):
    data, folder = two_colours(20), tmp_path / "grid"
    options = {**OPTIONS, "recipe": QUICK}
    whole = finetune(tiny, data, data, **options)
    steps.clear()
    record = torch.optim.SGD.step

    def stop(self, *args, **kwargs):
        if len(steps) == 10:  # amid the third pair
            raise KeyboardInterrupt
        return record(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(tiny, data, data, folder=folder, **options)
    assert len(list(folder.iterdir())) == 2
    steps.clear()
    assert finetune(tiny, data, data, folder=folder, **options) == whole
    assert len(steps) == 3 * 4  # two pairs and the last training
    steps.clear()
    assert finetune(tiny, data, data, folder=folder, **options) == whole
    assert len(steps) == 4
    for broken in (b"{", b"[1]", b"\xff", b'{"validation": NaN}', b'{"validation": "9"}', b"{}"):
        (folder / "lr0.1_decay0.0.json").write_bytes(broken)
        with pytest.raises(ValueError, match=r"lr0.1_decay0.0.json is damaged: remove it"):
            finetune(tiny, data, data, folder=folder, **options)


def test_the_test_split_picks_nothing(tiny):
    train = two_colours(60)
    test = two_colours(40, seed=1)
    other = ArrayDataset(test.images, (test.labels + (torch.arange(40) < 30)) % 2)
    recipe = Recipe(steps=20, batch_size=16, rates=(1e-60, 0.1), decays=(0.0,))
    scores = finetune(tiny, train, test, recipe=recipe, **OPTIONS)
    others = finetune(tiny, train, other, recipe=recipe, **OPTIONS)
    for key in ("lr", "weight_decay", "validation"):
        assert scores[key] == others[key]
    assert scores["lr"] == 0.1  # the other moves no weight
    assert scores["accuracy"] > 80
    assert others["accuracy"] == pytest.approx(scores["accuracy"] * -0.5 + 75, abs=15)
    assert list(Tiny.scored_on[-1].shape) == [40, 3, 8, 8]
    assert sum(len(images) == 40 for images in Tiny.scored_on) == 2  # once in each run


def test_it_learns():
    train, test = (
        ArrayDataset(torch.from_numpy(images), torch.from_numpy(labels))
        for images, labels in (shapes("train", 300), shapes("test", 200))
    )
    recipe = Recipe(steps=40, batch_size=48, rates=(0.1,), decays=(1e-5,), min_scale=0.9)
    torch.manual_seed(0)
    options = {"size": 32, "normalize": "half", "metric": "mean_per_class", "classes": 10}
    scores = finetune(ResNet9(4), train, test, recipe=recipe, **options)
    assert scores["metric"] == "mean_per_class"
    assert scores["mean_per_class"] > 30


def test_semi(tiny, steps):
    labels = torch.tensor([0] * 150 + [1] * 30 + [2] * 3)
    data = ArrayDataset(torch.randint(0, 256, (183, 3, 8, 8)).byte(), labels)
    options = {**OPTIONS, "classes": 3}
    scores = semi(tiny, data, data, recipe=SEMI10, **options)
    assert scores["images"] == scores["batch_size"] == 15 + 3 + 1
    assert scores["lr"] == pytest.approx(0.05 * 19 / 256)
    assert scores["steps"] == 30 == len(steps)
    assert {decay for _, *decays in steps for decay in decays} == {0}
    assert scores.keys() == {
        *("metric", "accuracy", "lr", "weight_decay", "steps", "batch_size", "images")
    }
    small = semi(
        tiny, data, data, recipe=SemiRecipe(fraction=0.1, batch_size=10, steps=5), **options
    )
    assert small["cut"] == "5 of 114 steps"  # 60 epochs of 19 images
    assert small["lr"] == pytest.approx(0.05 * 10 / 256)


def test_difficult_ones_are_left_out_of_the_loss():
    logits = torch.tensor([[0.0, 2.0], [-1.0, 3.0]], requires_grad=True)
    labels = torch.tensor([[1, -1], [0, 1]])
    loss = _loss(logits, labels)
    expected = math.log(2) + math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))
    assert loss.item() == pytest.approx(expected / 3)
    loss.backward()
    assert logits.grad[0, 1] == 0
    assert _loss(logits, torch.full((2, 2), -1)).item() == 0


class Many(Dataset):
    """Images of red, green or both, with labels (N, 2); some present as difficult only."""

    def __init__(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        self.labels = (torch.rand(n, 2, generator=generator) < 0.5).long()
        self.images = torch.zeros(n, 3, 8, 8, dtype=torch.uint8)
        self.images[:, :2] = self.labels.byte()[:, :, None, None] * 200
        self.labels[torch.rand(n, 2, generator=generator) < 0.1] = -1

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


def test_many_labels(tiny):
    recipe = Recipe(steps=15, batch_size=8, rates=(0.1,), decays=(0.0,))
    options = {**OPTIONS, "metric": "map11"}
    scores = finetune(tiny, Many(60, 0), Many(40, 1), recipe=recipe, **options)
    assert scores["map11"] == 100
    assert scores["validation"] == 100
    assert semi(tiny, Many(60, 0), Many(40, 1), **options)["metric"] == "map11"


def test_workers_and_containers_change_nothing(tiny, tmp_path):
    data = pictures(tmp_path)
    recipe = Recipe(steps=2, batch_size=8, rates=(0.01,), decays=(0.0,))
    content = [BytesIO(path.read_bytes()) for path in data.paths]
    opened = [Image.open(path) for path in data.paths]
    shown = []
    for sources, workers in ((data.paths, 0), (data.paths, 2), (content, 0), (opened, 0)):
        same = LabelledImages(sources, data.labels, data.classes)
        finetune(tiny, same, same, recipe=recipe, workers=workers, **OPTIONS)
        shown.append(torch.cat(Tiny.trained_on))
        Tiny.trained_on.clear()
    assert all(torch.equal(views, shown[0]) for views in shown[1:])
    arrays = two_colours(20)  # a data set without .labels
    scores = finetune(
        tiny, TensorDataset(arrays.images, arrays.labels), arrays, recipe=recipe, **OPTIONS
    )
    assert scores["accuracy"] >= 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_one_line(tiny, tmp_path, workers):
    data = pictures(tmp_path)
    data.paths[3].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^cannot read the image '.*3.png': not an image$"):
        finetune(tiny, data, data, recipe=QUICK, workers=workers, **OPTIONS)


def test_an_error_of_any_data_set_is_one_line(tiny):
    class Broken(Many):
        def __getitem__(self, i):
            raise ValueError("no image is there")

    options = {**OPTIONS, "metric": "map11"}
    with pytest.raises(ValueError, match=r"^no image is there$"):
        finetune(tiny, Broken(60, 0), Many(40, 1), recipe=QUICK, workers=1, **options)


def test_a_loss_that_is_not_finite_is_a_failure(tiny, monkeypatch):
    monkeypatch.setattr("sslkit.evaluation.tuning._loss", lambda *a: _loss(*a) + math.inf)
    with pytest.raises(ValueError, match="diverged at each of 4 pairs"):
        finetune(tiny, two_colours(20), two_colours(20), recipe=QUICK, **OPTIONS)


def test_a_pair_that_diverges_fails_alone(tiny, tmp_path):
    data = ArrayDataset(two_colours(40).images, torch.arange(40) % 3 % 2)  # not to be learned
    recipe = Recipe(steps=8, batch_size=8, rates=(1e30, 0.01), decays=(0.0,))
    scores = finetune(tiny, data, data, recipe=recipe, folder=tmp_path, **OPTIONS)
    assert scores["lr"] == 0.01
    assert scores["diverged"] == 1
    assert all(math.isfinite(v) for v in scores.values() if not isinstance(v, str))
    assert finetune(tiny, data, data, recipe=recipe, folder=tmp_path, **OPTIONS) == scores
    recipe = Recipe(steps=4, batch_size=8, rates=(1e30, 1e25), decays=(0.0,))
    with pytest.raises(ValueError, match=r"^fine-tuning diverged at each of 2 pairs"):
        finetune(tiny, data, data, recipe=recipe, **OPTIONS)
    with pytest.raises(ValueError, match="diverged at a learning rate of"):
        semi(tiny, data, data, recipe=SemiRecipe(fraction=0.5, rate=1e30), **OPTIONS)


@pytest.mark.parametrize(
    ("labels", "changed", "says"),
    [
        ([0, 1, 2] * 4, {}, "labels of train must be from 0 to 1, but one is 2"),
        ([0, 1, -2] * 4, {}, "labels of train must be from 0 to 1, but one is -2"),
        ([0, 1, -1] * 4, {}, "needs labels, but some of train are -1"),
        ([0, 3] * 4, {"classes": 4}, "train has no image of class 1, and needs one of each of 4"),
        ([1] * 4, {}, "train has one class only, 1, of 2"),
        ([0, 1], {}, "too few images: of 2 to train on none can be held out"),
        ([], {}, "train has no images"),
        ([0, 1] * 4, {"metric": "top1"}, "one of accuracy, mean_per_class, map11, not 'top1'"),
        ([0, 1] * 4, {"metric": "map11"}, r"int64 \(N, 2\) for map11, not int64 \(8,\)"),
        ([0, 1] * 4, {"classes": 1}, "classes must be at least 2, not 1"),
    ],
)
def test_labels_that_cannot_be_used(tiny, labels, changed, says):
    images = torch.zeros(len(labels), 3, 8, 8).byte()
    train = ArrayDataset(images, torch.tensor(labels, dtype=torch.int64))
    with pytest.raises(ValueError, match=says):
        finetune(tiny, train, two_colours(8), recipe=QUICK, **{**OPTIONS, **changed})
    assert not Tiny.trained_on


def test_splits_that_cannot_be_used(tiny):
    one = ArrayDataset(two_colours(8).images, torch.ones(8).long())
    with pytest.raises(ValueError, match="train has no images"):
        finetune(tiny, TensorDataset(torch.zeros(0, 3, 8, 8)), one, recipe=QUICK, **OPTIONS)
    with pytest.raises(ValueError, match="test has one class only, 1, of 2"):
        finetune(tiny, two_colours(8), one, recipe=QUICK, **OPTIONS)
    with pytest.raises(ValueError, match="needs labels, but some of train are -1"):
        semi(tiny, ArrayDataset(two_colours(8).images), one, **OPTIONS)
    options = {**OPTIONS, "metric": "map11", "recipe": QUICK}
    few, none, odd = Many(30, 0), Many(30, 0), Many(30, 0)
    few.labels[:, 1] = torch.arange(30) == 4
    none.labels[:, 1] = -1
    odd.labels[3, 0] = 2
    for train, test, says in (
        (few, Many(30, 1), "train needs 2 images of each class, one to choose by, but not of 1"),
        (none, Many(30, 1), "train has no image of class 1"),
        (Many(30, 1), none, "test has no image of class 1, and map11 needs one of each"),
        (odd, Many(30, 1), "labels of train must be from -1 to 1, but one is 2"),
    ):
        with pytest.raises(ValueError, match=says):
            finetune(tiny, train, test, **options)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"rates": ()}, r"rates must be one or more finite numbers above 0, not \(\)"),
        ({"rates": (0.0,)}, "rates must be"),
        ({"rates": (math.nan,)}, "rates must be"),
        ({"decays": ()}, "decays must be one or more finite numbers of at least 0"),
        ({"decays": (-1e-3,)}, "decays must be"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, not 1.0"),
        ({"validation": 1.0}, "validation must be between 0 and 1, not 1.0"),
        ({"min_scale": 0.0}, "min_scale must be above 0 and at most 1, not 0.0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_recipes_that_cannot_be_used(given, says):
    with pytest.raises(ValueError, match=says):
        Recipe(**given)


def test_budgets_that_cannot_be_used():
    for given in ({"fraction": 0.0}, {"fraction": 2.0}, {"epochs": 0}, {"rate": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} must be"):
            SemiRecipe(**given)
    with pytest.raises(ValueError, match="grid must be 2 numbers of at least 1"):
        budget(FINETUNE, grid=(0, 2))
    for recipe in (FINETUNE, SEMI1):
        with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
            budget(recipe, steps=0)
