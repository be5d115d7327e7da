import copy
import math

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import linear, normalize

from sslkit.backbones import Backbone, ResNet9
from sslkit.data import ArrayDataset, DataModule, load
from sslkit.losses import ContrastiveLoss, NPairLoss, TripletMarginLoss
from sslkit.methods import DEDSP, de_dsp
from sslkit.methods.base import Batch
from sslkit.methods.held_out import HeldOut
from sslkit.methods.negatives import draw
from sslkit.methods.sampling import gumbel_top_k
from sslkit.miners import semi_hard
from sslkit.training import Optimizer
from sslkit.views import SimCLRViews, SupervisedView

LOSSES = {
    "triplet": lambda: TripletMarginLoss(margin=0.4),
    "n_pair": lambda: NPairLoss(l2=0.02),
}
each_loss = pytest.mark.parametrize("name", LOSSES)
DATA = {"limit": 96, "batch_size": 12, "per_class": 2, "held_out": 3}
quiet = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def method(name="triplet", **options):
    optimizer = Optimizer(name="sgd", lr=0.05, lr_scaling="none", warmup_epochs=0)
    options = {"embedding_dim": 8, "judge_every": 3, "normalize": name == "triplet", **options}
    view = options.pop("view", SupervisedView(32, normalize="half"))
    return DEDSP(ResNet9(4), view, optimizer, loss=LOSSES[name](), **options)


def ready(model):
    """As a fit has it at the first step."""
    data = DataModule("shapes", **DATA)
    data.setup("fit")
    model.take(data)
    return model


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randperm(10, generator=generator)[:6]
    labels = classes.repeat_interleave(2)
    return Batch((torch.randn(12, 3, 32, 32, generator=generator),), None, labels, labels)


def warmed_up(name, **options):
    """In evaluation mode after a few batches, with policies that have preferences."""
    torch.manual_seed(0)
    model = ready(method(name, **options)).eval()
    for policy in (model.class_policy, model.negative_policy):
        policy[2].weight.data.normal_()
    for seed in range(1, 4):
        model.objective(batch(seed))
    return model


def fit(model, *callbacks, epochs=1, **options):
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks],
    )
    trainer.fit(model, datamodule=DataModule("shapes", **{**DATA, **options}))


# the loss and the reward


def loss_of(name, z, i, p, negatives, penalty=0.01):
    """Of one anchor, in its own words."""
    if name == "triplet":
        z = normalize(z, dim=1)
        near = (z[i] - z[p]).square().sum()
        return sum((near - (z[i] - z[n]).square().sum() + 0.4).relu() for n in negatives) / len(
            negatives
        )
    repelled = sum((z[i] @ z[n] - z[i] @ z[p]).exp() for n in negatives)
    return (1 + repelled).log() + penalty * (z[i] @ z[i] + z[p] @ z[p])


def held_out_loss(z, labels):
    z, total = normalize(z, dim=1), 0
    for i in range(len(z)):
        shares = torch.stack([(z[i] @ z[j] / 0.1).exp() for j in range(len(z)) if j != i])
        mine = torch.stack([labels[j] == labels[i] for j in range(len(z)) if j != i])
        total = total - (shares[mine].sum() / shares.sum()).log()
    return total / len(z)


def held_out_images(model):
    rows = model.held_out.rows.flatten()
    return model.held_out.dataset.images[rows], model.held_out.dataset.labels[rows]


@each_loss
def test_what_is_judged(name):
    model = warmed_up(name).train()
    images, labels = held_out_images(model)
    with torch.no_grad():
        net = copy.deepcopy(model.backbone).eval()
        z = net(model.eval_view(images)).double()
    said = model.judge()
    assert said["held_out"].item() == pytest.approx(held_out_loss(z, labels).item(), rel=1e-4)
    cosine = normalize(z, dim=1) @ normalize(z, dim=1).T - 9 * torch.eye(len(z))
    right = (labels[cosine.argmax(1)] == labels).double().mean()
    assert said["held_out_recall"].item() == pytest.approx(right.item())


@each_loss
def test_the_reward_is_what_a_small_step_on_the_anchors_loss_does_for_the_held_out_images(name):
    model, given = warmed_up(name), batch()
    positive = draw(given.labels, 1).positive
    pixels = torch.randn(3 * 32 * 32, 32) / 2000  # features that differ more than a new network's
    model._features = lambda images: images.flatten(1).float() @ pixels
    model.judge()
    features = torch.randn(12, 32)
    rewards = model.rewards(features, positive)

    head = model.backbone.embedding
    weights = [p.detach().double().requires_grad_() for p in (head.weight, head.bias)]
    images, labels = held_out_images(model)
    held = model._features(images).double()
    before = held_out_loss(linear(held, *weights), labels)
    direction = torch.autograd.grad(before, weights)
    for i, n in torch.nonzero(given.labels[:, None] != given.labels).tolist():
        z = linear(features.double(), *weights)
        own = torch.autograd.grad(loss_of(name, z, i, int(positive[i]), [n], 0.0), weights)
        inner = sum((g * d).sum() for g, d in zip(own, direction, strict=True)).item()
        assert rewards[i, n].item() == pytest.approx(inner, rel=1e-3, abs=1e-4)
        if n % 5 == 0:
            with torch.no_grad():
                moved = [w - 1e-6 * g for w, g in zip(weights, own, strict=True)]
                fell = (before - held_out_loss(linear(held, *moved), labels)).item()
            assert fell / 1e-6 == pytest.approx(inner, rel=1e-3, abs=1e-4)
    assert rewards.std() > 0.02


def plackett_luce(scores, picks):
    """The log-probability of each pick, from scores of the candidates by their places."""
    left, found = dict(scores), []
    for pick in picks:
        found.append(left[pick] - torch.stack(list(left.values())).logsumexp(0))
        del left[pick]
    return torch.stack(found)


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)


@each_loss
def test_neither_moves_the_other(name):
    model = warmed_up(name, negatives=2, entropy=0.3, judge_every=2)  # not at the fourth step
    given, relations = batch(), copy.deepcopy(model.relations)
    torch.manual_seed(1)
    terms = model.objective(given)
    model.relations = relations
    torch.manual_seed(1)
    labels, classes = given.labels, given.labels[::2]
    features = model.backbone.backbone(given.views[0])
    z = model.backbone.embed(features)
    positive = draw(labels, 1).positive
    candidates = labels[:, None] != labels
    of_unit = normalize(z.detach(), dim=1)
    scores, _ = model._negative_scores(of_unit, labels, positive, candidates)
    picks = gumbel_top_k(scores.detach(), 2)
    of_rows = [loss_of(name, z, i, int(positive[i]), picks[i].tolist()) for i in range(12)]
    metric = torch.stack(of_rows).mean()

    rewards = model.rewards(features.detach(), positive)
    policy, entropy, gained = 0, 0, []
    for i in range(12):
        others = [j for j in range(12) if candidates[i, j]]
        p = scores[i, others].softmax(0)
        gained.append(rewards[i, others] - rewards[i, others].mean())
        policy = policy - (p * gained[-1]).sum() / 12
        entropy = entropy - (p * p.log()).sum() / math.log(10) / 12
    policy = policy / torch.cat(gained).std(correction=0)
    reward = rewards.gather(1, picks).mean(1)
    advantage = (reward - reward.mean()) / reward.std(correction=0)
    own = model.class_policy(relations.beside(classes[:1]))
    own = {c: own[c] for c in range(10) if c != classes[0]}
    log_p = plackett_luce(own, classes[1:].tolist())
    for c, log_of in zip(classes[1:].tolist(), log_p, strict=True):
        rows = [i for i in range(12) if labels[i] == c or c in labels[picks[i]].tolist()]
        policy = policy - advantage[rows].mean() * log_of / 5
    p = torch.stack(list(own.values())).softmax(0)
    of_classes = -(p * p.log()).sum() / math.log(9)
    policy = policy - 0.3 * (entropy + of_classes)

    torch.testing.assert_close(terms["metric"], metric)
    torch.testing.assert_close(terms["loss"], metric + policy, rtol=1e-4, atol=1e-5)
    parts = (model.backbone, metric), (model.class_policy, policy), (model.negative_policy, policy)
    for part, own in parts:
        found = gradients(terms["loss"], part)
        torch.testing.assert_close(found, gradients(own, part), rtol=1e-3, atol=1e-5)
        assert any(gradient.abs().max() > 0 for gradient in found)
    torch.testing.assert_close(terms["entropy"], entropy)
    torch.testing.assert_close(terms["class_entropy"], of_classes)


def test_what_a_negative_is_told_by():
    model = warmed_up("triplet")
    labels, z = batch().labels, normalize(torch.randn(12, 8), dim=1)
    positive, given = draw(labels, 1).positive, []
    model.negative_policy.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    _, rank = model._negative_scores(z, labels, positive, labels[:, None] != labels)
    centres, losses = model.relations.centres, model.relations.standard_losses
    for a in range(12):
        others = [n for n in range(12) if labels[n] != labels[a]]
        for n in others:
            d = (z[a] - z[n]).norm().item()
            nearer = sum((z[a] - z[m]).norm() < (z[a] - z[n]).norm() for m in others)
            gap = min(max(d - (z[a] - z[positive[a]]).norm().item(), -0.8), 0.8)
            expected = [
                d,
                (centres[labels[a]] - centres[labels[n]]).norm().item(),
                losses[labels[n]].item(),
                int(nearer) / 9,
                *(math.exp(-(((gap - place / 10) / 0.1) ** 2) / 2) for place in range(-8, 9)),
            ]
            assert given[0][a, n].tolist() == pytest.approx(expected, abs=2e-3)
    torch.testing.assert_close(rank, given[0][..., 3])


@each_loss
def test_the_batch_moves_the_relations_of_every_view(name):
    model = ready(method(name, view=SimCLRViews(32, normalize="half"))).eval()
    views = torch.randn(2, 12, 3, 32, 32)
    labels = batch().labels
    model.objective(Batch(tuple(views), None, labels, labels))
    with torch.no_grad():
        z = normalize(model.backbone(views.flatten(0, 1)), dim=1)
    for label in labels.unique():
        mean = z[labels.repeat(2) == label].mean(0)
        torch.testing.assert_close(model.relations.centres[label], normalize(mean, dim=0))
    assert model.relations.met.sum() == 6


def test_negatives_an_anchor(monkeypatch):
    def picked(name, **options):
        model, found = ready(method(name, **options)), []
        each = de_dsp.loss_of_each
        with monkeypatch.context() as patch:
            patch.setattr(model, "rewards", lambda *_: torch.zeros(12, 12))
            patch.setattr(
                de_dsp, "loss_of_each", lambda *x: found.append(x[3].shape[1]) or each(*x)
            )
            model.objective(batch())
        return found[0]

    assert picked("triplet") == 1
    assert picked("n_pair") == 2  # half of 5 other classes
    assert picked("triplet", negatives=4) == 4
    assert picked("n_pair", negatives=99) == 10  # all there are


# judging


def test_judging_leaves_weights_and_statistics_as_they_are():
    model = ready(method())
    before = copy.deepcopy(model.state_dict())
    model.judge()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("direction_"), name
    assert all(module.training for module in model.backbone.modules())
    assert all(p.grad is None for p in model.parameters())


def test_it_judges_every_few_steps():
    model = ready(method(judge_every=3))
    found = ["held_out" in model.objective(batch(seed)) for seed in range(7)]
    assert found == [False, False, False, True, False, False, True]


@each_loss
def test_before_it_has_judged_the_policies_learn_nothing(name):
    """Not even of a network whose statistics are those of its start."""
    model = ready(method(name)).train()
    terms = model.objective(batch())
    assert terms["reward"] == 0
    for policy in (model.class_policy, model.negative_policy):
        assert all(gradient.abs().max() < 1e-8 for gradient in gradients(terms["loss"], policy))


class Rows(pl.Callback):
    def __init__(self):
        self.rows = set()

    def on_train_batch_start(self, trainer, module, batch, _):
        self.rows |= set(batch.index.tolist())


@quiet
def test_a_fit_shows_no_image_that_is_held_out_and_lets_the_policy_choose():
    model, seen, scores = method(policy_lr=0.25), Rows(), []
    own = model._class_scores
    model._class_scores = lambda seeds: scores.append(own(seeds)) or scores[-1]
    before = copy.deepcopy(model.state_dict())
    fit(model, seen, epochs=4)
    held = set(model.held_out.rows.flatten().tolist())
    assert len(held) == 30
    assert not seen.rows & held
    # each step learns from the very scores that its classes were drawn by
    assert len(scores) == 2 * 4 * 5
    for drawn, learnt in zip(scores[::2], scores[1::2], strict=True):
        torch.testing.assert_close(drawn, learnt.detach())
    after = model.state_dict()
    for name in ("class_policy.2.weight", "negative_policy.2.weight"):
        assert not torch.equal(before[name], after[name])


@quiet
@each_loss
def test_a_resumed_run_repeats_the_losses(name, resumed_like_new):
    resumed_like_new(lambda: method(name, policy_lr=0.25, judge_every=2), **DATA)


@quiet
def test_the_policies_have_a_learning_rate_of_their_own():
    model = method(policy_lr=0.25, backbone_lr=0.5)
    groups = model.optimizer.build(model, 8, model.rates()).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    for policy in (model.class_policy, model.negative_policy):
        assert [rate[id(p)] for p in policy.parameters()] == pytest.approx([0.25] * 4)
    assert {rate[id(p)] for p in model.backbone.backbone.parameters()} == {0.5 * 0.05}
    assert {rate[id(p)] for p in model.backbone.embedding.parameters()} == {0.05}


# what it learns


class Colours(Backbone):
    """The mean colour of an image, and nothing to learn."""

    feature_dim = 3

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def feature_map(self, images):
        return images

    def init_args(self):
        return {}


def test_the_policy_learns_to_choose_the_negatives_that_help():
    """Classes come in two lots, far apart: only the others of its own lot are of use to an anchor,
    since those of the other are beyond the margin."""
    torch.manual_seed(0)
    centres = torch.tensor([[9, 2, 0], [9, -2, 0], [-9, 0, 2], [-9, 0, -2]]) / 10
    labels = torch.arange(4).repeat_interleave(6)
    x = centres[labels] + 0.15 * torch.randn(24, 3)
    pixels = ((x + 1) / 2).clamp(0, 1).mul(255).round().to(torch.uint8)
    data = ArrayDataset(pixels[:, :, None, None].expand(-1, -1, 4, 4).contiguous(), labels)
    view = SupervisedView(4, normalize="half")
    model = DEDSP(Colours(), view, loss=TripletMarginLoss(), embedding_dim=3, entropy=0.0)
    torch.nn.init.eye_(model.backbone.embedding.weight)
    torch.nn.init.zeros_(model.backbone.embedding.bias)
    model.prepare(data, 8)
    model.held_out, model.per_class = HeldOut(data, torch.arange(24).view(4, 6)[:, 3:]), 2
    optimizer = torch.optim.Adam(model.negative_policy.parameters(), 0.02)
    found = []
    for _ in range(300):
        noise = 0.15 * torch.randn(8, 3, 1, 1)
        classes = torch.randperm(4).repeat_interleave(2)
        given = (centres[classes][:, :, None, None] + noise).expand(-1, -1, 4, 4)
        terms = model.objective(Batch((given,), None, classes, classes))
        found.append(terms["rank"].item())
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert sum(found[:20]) / 20 == pytest.approx(0.5, abs=0.15)
    assert sum(found[-50:]) / 50 < 0.2  # the two of its own lot have the ranks 0 and 0.2
    assert terms["entropy"] < 0.7


# what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"negatives": 0}, "negatives must be a finite number, at least 1, not 0"),
        ({"judge_every": 0}, "judge_every must be a finite number, at least 1, not 0"),
        ({"judge_images": 3}, "judge_images must be a finite number, at least 4, not 3"),
        ({"entropy": -0.1}, "entropy must be a finite number, at least 0, not -0.1"),
        ({"policy_lr": math.inf}, "policy_lr must be a finite number, at least 0, not inf"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(ValueError, match=said):
        method(**options)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (ContrastiveLoss(), "DEDSP is not for ContrastiveLoss; choose from TripletMarginLoss, NP"),
        (TripletMarginLoss(miner=semi_hard), "DEDSP chooses the negatives: TripletMarginLoss take"),
    ],
)
def test_other_losses_are_refused(loss, said):
    with pytest.raises(ValueError, match=said):
        DEDSP(ResNet9(4), SupervisedView(32), loss=loss)


def test_it_is_for_one_process():
    with pytest.raises(ValueError, match="DEDSP runs on one process, not on 2"):
        method().prepare(load("shapes", limit=64), 8, 2)


@quiet
def test_data_without_images_held_out_is_refused():
    with pytest.raises(ValueError, match=r"data.held_out to 2 or more, not 0"):
        fit(method(), held_out=0)
    with pytest.raises(ValueError, match="DEDSP needs a data module first"):
        method().objective(batch())
