import copy
import math

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import normalize

from sslkit.backbones import ResNet9
from sslkit.data import DataModule, load
from sslkit.losses import ContrastiveLoss, NPairLoss, TripletMarginLoss
from sslkit.methods import PADS
from sslkit.methods.base import Batch
from sslkit.methods.pads import FACTORS, LENGTHS, bins_of
from sslkit.miners import semi_hard
from sslkit.training import Optimizer
from sslkit.views import SupervisedView

LOSSES = {
    "triplet": lambda: TripletMarginLoss(margin=0.4),
    "n_pair": lambda: NPairLoss(l2=0.02),
}
each_loss = pytest.mark.parametrize("name", LOSSES)
DATA = {"limit": 96, "batch_size": 12, "per_class": 2, "held_out": 3}
quiet = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def method(name="triplet", **options):
    optimizer = Optimizer(name="sgd", lr=0.05, lr_scaling="none", warmup_epochs=0)
    options = {"embedding_dim": 8, "adapt_every": 3, "normalize": name == "triplet", **options}
    view = SupervisedView(32, normalize="half")
    return PADS(ResNet9(4), view, optimizer, loss=LOSSES[name](), **options)


def ready(model):
    """As a fit has it at the first step."""
    data = DataModule("shapes", **DATA)
    data.setup("fit")
    model.take(data)
    return model


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randperm(10, generator=generator)[:6].repeat_interleave(2)
    return Batch((torch.randn(12, 3, 32, 32, generator=generator),), None, labels, labels)


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)


def with_embeddings(model, z):
    """The method with embeddings of its batches that stand still."""
    model.backbone.forward = lambda images: z.clone().requires_grad_()
    return model


# drawing


@pytest.mark.parametrize("k", [1, 3])
def test_negatives_come_as_often_as_the_histogram_says(k, monkeypatch):
    torch.manual_seed(0)
    model, given = ready(method(negatives=k, bins=6)), batch()
    z = normalize(torch.randn(12, 3), dim=1)
    model.step, model.histogram = 2, torch.tensor([0.3, 0.05, 0.25, 0.05, 0.15, 0.2])
    picked = []
    monkeypatch.setattr(
        "sslkit.methods.pads.loss_of_each",
        lambda loss, z, positive, picks: picked.append(picks) or z.sum(1),
    )
    with_embeddings(model, z)
    n = 3000
    for _ in range(n):
        model.step = 2
        model.objective(given)
    drawn = torch.stack(picked)
    for a in range(12):
        far = {
            j: (z[a] - z[j]).norm().item() for j in range(12) if given.labels[j] != given.labels[a]
        }
        bins = {j: min(5, max(0, math.floor((d - 0.1) / 1.3 * 6))) for j, d in far.items()}
        weights = {j: model.histogram[b].item() for j, b in bins.items()}
        for j, weight in weights.items():
            p = weight / sum(weights.values())
            share = (drawn[:, a, 0] == j).double().mean().item()
            assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / n)
        assert all(len(set(row)) == k for row in drawn[:50, a].tolist())


@each_loss
def test_the_metric_is_the_loss_of_what_was_drawn(name):
    """Where an anchor takes all the negatives there are, whatever the histogram."""
    torch.manual_seed(0)
    model, given = ready(method(name, negatives=99)).eval(), batch()
    model.step = 2
    terms = model.objective(given)
    z, total = model.backbone(given.views[0]), 0
    for a in range(12):
        (p,) = [j for j in range(12) if given.labels[j] == given.labels[a] and j != a]
        others = z[given.labels != given.labels[a]]
        if name == "triplet":
            near, far = (z[a] - z[p]).square().sum(), (z[a] - others).square().sum(1)
            total = total + (near - far + 0.4).relu().mean()
        else:
            total = total + (1 + (others @ z[a] - z[p] @ z[a]).exp().sum()).log()
            total = total + 0.01 * (z[a] @ z[a] + z[p] @ z[p])
    torch.testing.assert_close(terms["metric"], total / 12)
    torch.testing.assert_close(terms["loss"], terms["metric"])


def test_where_it_begins():
    model = method(bins=5, interval=(0.0, 1.0), start=(0.25, 0.75))
    assert model.histogram.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0], abs=1e-5)
    assert method().histogram.tolist() == pytest.approx([1 / 30] * 30)
    assert bins_of(torch.tensor([0.11, 1.39]), (0.1, 1.4), 30).tolist() == [0, 29]


# adapting


def scripted(model, *found):
    """The method with what the held-out images say at each time."""
    rest = iter(found)
    model.judged = lambda: torch.tensor(next(rest))
    return model


def test_what_the_policy_sees_and_learns_by_a_loop():
    torch.manual_seed(0)
    said = [[0.2, 0.3, 0.4, 0.5], [0.3, 0.3, 0.3, 0.6], [0.2, 0.1, 0.5, 0.4], [0.2, 0.1, 0.2, 0.3]]
    model = scripted(ready(method(bins=4)).eval(), *said)
    model.policy[4].weight.data.normal_(0, 0.1)
    model.length = 20
    averages, baseline, rewards = [said[0]] * 4, 0.0, [None, 1, -1, 0]
    for time, (found, reward) in enumerate(zip(said, rewards, strict=True)):
        state, action = model.state.clone(), model.action.clone()
        histogram = model.histogram.clone()
        terms = model.objective(batch(time))
        policy = terms["loss"] - terms["metric"]
        if time:
            scores = model.policy(state).view(4, 3)
            log_p = [s - s.exp().sum().log() for s in scores]
            picked = [log_p[b][action[b]] for b in range(4)]
            expected = -(reward - baseline) * sum(picked) / 4
            torch.testing.assert_close(policy, expected, rtol=1e-4, atol=1e-6)
            assert terms["reward"] == reward
            own, other = gradients(terms["loss"], model.policy), gradients(expected, model.policy)
            torch.testing.assert_close(own, other)
            backbone = gradients(terms["loss"], model.backbone)
            torch.testing.assert_close(backbone, gradients(terms["metric"], model.backbone))
            baseline += 0.05 * (reward - baseline)
            averages = [
                [old + (new - old) / length for old, new in zip(row, found, strict=True)]
                for row, length in zip(averages, LENGTHS, strict=True)
            ]
        else:
            assert policy == 0
        expected = sum(averages, []) + (4 * histogram).tolist() + [3 * time / 20]  # noqa: RUF017
        assert model.state.tolist() == pytest.approx(expected, abs=1e-6)
        before = model.histogram.clone()
        model.objective(batch())  # the step after, when it acts
        weights = [h * FACTORS[a] for h, a in zip(before.tolist(), model.action, strict=True)]
        expected = [w / sum(weights) for w in weights]
        assert model.histogram.tolist() == pytest.approx(expected, abs=1e-6)
        after = model.histogram.clone()
        model.objective(batch())
        assert torch.equal(model.histogram, after)


def test_actions_come_as_often_as_the_policy_says():
    torch.manual_seed(0)
    model = method(bins=2)
    model.policy[4].bias.data.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5, 0.0, 0.0]))
    drawn, uniform = [], model.histogram.clone()
    for _ in range(2000):
        model.histogram = uniform
        model.adapt()
        drawn.append(model.action)
    shares = [[(torch.stack(drawn)[:, b] == a).float().mean() for a in range(3)] for b in (0, 1)]
    expected = torch.tensor([[0.0, 1.0, -1.0], [0.5, 0.0, 0.0]]).softmax(1)
    torch.testing.assert_close(torch.tensor(shares), expected, atol=0.05, rtol=0)


def test_no_bin_is_lost():
    model = method(bins=3)
    for _ in range(200):
        model.histogram = model.histogram * torch.tensor([0.8, 1.0, 1.0])
        model.adapt()
    assert model.histogram.sum().item() == pytest.approx(1)
    assert model.histogram.min() > 1e-7


def test_the_policy_learns_to_move_the_histogram_where_the_score_rises():
    """A score that rises where the mass of the nearer bins does."""
    torch.manual_seed(0)
    model = method(bins=4)

    def judged():
        near = model.histogram[:2].sum()
        return torch.stack([near, torch.tensor(0.5), near, near])

    model.judged, optimizer = judged, torch.optim.Adam(model.policy.parameters(), 0.003)
    assert model._log_probabilities().exp().flatten().tolist() == pytest.approx([1 / 3] * 12)
    for model.step in range(150):
        terms = model.learn()
        if model.step:
            optimizer.zero_grad()
            terms["policy"].backward()
            optimizer.step()
        if model.step % 20 == 0:  # from even again, or it would end at 1, where nothing rises
            model.histogram = torch.full((4,), 0.25)
            model.before.fill_(1.0)
        model.adapt()
    expected = model._log_probabilities().exp() @ torch.tensor(FACTORS).log()
    assert expected[:2].mean() > 0.05
    assert expected[2:].mean() < -0.05


# judging


def test_judging_leaves_the_method_as_it_is():
    model = ready(method())
    before = copy.deepcopy(model.state_dict())
    recall, nmi, within, between = model.judged().tolist()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.backbone.modules())
    assert 0 <= recall <= 1
    assert 0 <= nmi <= 1
    assert 0 <= within <= 2
    assert 0 <= between <= 2
    assert model.judged().tolist() == [recall, nmi, within, between]


class Rows(pl.Callback):
    def __init__(self):
        self.rows = set()

    def on_train_batch_start(self, trainer, module, batch, _):
        self.rows |= set(batch.index.tolist())


def fit(model, *callbacks, **options):
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks],
    )
    trainer.fit(model, datamodule=DataModule("shapes", **{**DATA, **options}))


@quiet
def test_a_fit_shows_no_image_that_is_held_out_and_moves_the_policy():
    model, seen = method(policy_lr=0.25), Rows()
    fit(model, seen)
    assert not seen.rows & set(model.held_out.rows.flatten().tolist())
    assert model.policy[4].weight.abs().max() > 0
    assert model.histogram.std() > 0
    assert model.state[-1].item() == pytest.approx(18 / 20)


@quiet
@each_loss
@pytest.mark.parametrize("every", [2, 3])
def test_a_resumed_run_repeats_the_losses(name, every, resumed_like_new):
    """It goes on at a step at which it acts, or judges."""
    resumed_like_new(lambda: method(name, policy_lr=0.25, adapt_every=every), **DATA)


def test_the_policy_has_a_learning_rate_of_its_own():
    model = method(policy_lr=0.25, backbone_lr=0.5)
    groups = model.optimizer.build(model, 8, model.rates()).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    parameters = list(model.policy.parameters())
    assert [rate[id(p)] for p in parameters] == pytest.approx([0.25] * len(parameters))


# what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"negatives": 0}, "negatives must be a finite number, at least 1, not 0"),
        ({"bins": 1}, "bins must be a finite number, at least 2, not 1"),
        ({"adapt_every": 1}, "adapt_every must be a finite number, at least 2, not 1"),
        ({"judge_images": 3}, "judge_images must be a finite number, at least 4, not 3"),
        ({"policy_lr": -1.0}, "policy_lr must be a finite number, at least 0, not -1.0"),
        ({"interval": (1.4, 0.1)}, "interval must be 0 <= low < high <= 2, not 1.4 and 0.1"),
        ({"start": (1.5, 1.9)}, "start holds no bin of the interval from 0.1 to 1.4: 1.5 to 1.9"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(ValueError, match=said):
        method(**options)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (ContrastiveLoss(), "PADS is not for ContrastiveLoss; choose from TripletMarginLoss, NP"),
        (TripletMarginLoss(miner=semi_hard), "PADS chooses the negatives: TripletMarginLoss take"),
    ],
)
def test_other_losses_are_refused(loss, said):
    with pytest.raises(ValueError, match=said):
        PADS(ResNet9(4), SupervisedView(32), loss=loss)


@quiet
def test_several_processes_or_no_images_held_out():
    with pytest.raises(ValueError, match="PADS runs on one process, not on 2"):
        method().prepare(load("shapes", limit=64), 8, 2)
    with pytest.raises(ValueError, match=r"data.held_out to 2 or more, not 0"):
        fit(method(), held_out=0)
    with pytest.raises(ValueError, match="PADS needs a data module first"):
        method().objective(batch())
