import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslkit.backbones import Backbone, ResNet9
from sslkit.data import load
from sslkit.methods import Batch, MoCo
from sslkit.training import Optimizer
from sslkit.views import MoCoV2Views, SimCLRViews


class Linear(Backbone):
    """Without BatchNorm: what a group is made of does not matter."""

    feature_dim = 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8)

    def feature_map(self, images):
        return self.conv(images)

    def init_args(self):
        return {}


def moco(backbone=None, **options):
    torch.manual_seed(0)
    options = {"queue_size": 8, "projection_dim": 5, "splits": 1, "momentum": 0.9, **options}
    view = SimCLRViews(8, jitter=0.5, blur=False, normalize="half")
    return MoCo(backbone or Linear(), view, Optimizer(name="sgd", lr=0.1), **options)


def batch(n=4, seed=1, side=8):
    views = torch.randn(2, n, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return Batch(tuple(views), None, torch.zeros(n), torch.arange(n))


def by_loop(queries, keys, queue, temperature):
    total = 0.0
    for q, k in zip(queries, keys, strict=True):
        positive = math.exp(float(q @ k) / temperature)
        negative = sum(math.exp(float(q @ old) / temperature) for old in queue)
        total -= math.log(positive / (positive + negative))
    return total / len(queries)


def rows(projector, backbone, view):
    return F.normalize(projector(backbone(view))).detach().double()


def test_logits_are_of_the_queue_before_the_keys_are_pushed():
    model, given = moco(), batch()
    old = model.queue.clone().double()
    queries = rows(model.projector, model.backbone, given.views[0])
    keys = rows(model.momentum_projector, model.momentum_backbone, given.views[1])
    loss = model.objective(given)["loss"].item()
    assert loss == pytest.approx(by_loop(queries, keys, old, 0.2), rel=1e-5)
    # What the fault would give: each positive is a negative too, and the loss at least log 2.
    early = by_loop(queries, keys, model.queue.double(), 0.2)
    assert early != pytest.approx(loss, rel=1e-2)


def test_the_queue_holds_the_last_keys_and_wraps():
    model = moco(momentum=0.0)
    pushed = []
    for seed in range(3):  # 12 keys into 8 places
        given = batch(seed=seed)
        model.objective(given)
        pushed.append(rows(model.momentum_projector, model.momentum_backbone, given.views[1]))
    expected = torch.cat([pushed[2], pushed[1]]).float()
    torch.testing.assert_close(model.queue, expected)
    assert model.pointer.item() == 4


def test_the_slow_copy_follows_and_has_no_gradient():
    model = moco()
    slow = [p.clone() for p in model.momentum_backbone.parameters()]
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.add_(1.0)
    model.objective(batch())["loss"].backward()
    moved = zip(
        slow, model.backbone.parameters(), model.momentum_backbone.parameters(), strict=True
    )
    for before, fast, after in moved:
        torch.testing.assert_close(after, 0.9 * before + 0.1 * fast.detach())
        assert after.grad is None
        assert fast.grad is not None
    optimizer = model.optimizer.build(model, 4)
    learnt = {id(p) for group in optimizer.param_groups for p in group["params"]}
    fast = [*model.backbone.parameters(), *model.projector.parameters()]
    assert learnt == {id(p) for p in fast}


def test_keys_are_of_the_copy_after_it_has_moved():
    model, given = moco(momentum=0.5), batch()
    with torch.no_grad():
        for p in [*model.backbone.parameters(), *model.projector.parameters()]:
            p.add_(torch.randn_like(p))
    moved = copy.deepcopy(model)
    moved.follow()
    for part in ("backbone", "projector"):
        slow, fast = getattr(moved, f"momentum_{part}"), getattr(model, part)
        old = getattr(model, f"momentum_{part}")
        for a, b, c in zip(slow.parameters(), fast.parameters(), old.parameters(), strict=True):
            torch.testing.assert_close(a, (b + c) / 2)
    model.objective(given)
    keys = rows(moved.momentum_projector, moved.momentum_backbone, given.views[1])
    torch.testing.assert_close(model.queue[:4].double(), keys, atol=1e-6, rtol=1e-5)


def test_a_slow_copy_in_16_bits_is_refused():
    # There 0.999 x 0.1 + 0.001 x 0.2 is 0.1 again.
    with pytest.raises(ValueError, match=r"in 32 bits, not torch\.bfloat16: use a mixed precision"):
        moco().bfloat16().on_fit_start()
    moco().on_fit_start()


def test_gradient_is_that_of_the_loss_over_a_queue_that_stays():
    model, given = moco(), batch()
    twin = copy.deepcopy(model)
    model.objective(given)["loss"].backward()
    q = F.normalize(twin.projector(twin.backbone(given.views[0])))
    k = rows(twin.momentum_projector, twin.momentum_backbone, given.views[1]).float().detach()
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ twin.queue.T], 1) / 0.2
    F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)).backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_groups_have_statistics_of_their_own_and_keys_come_back_in_order():
    given = batch(8, side=16)
    split = moco(ResNet9(2), splits=2)
    whole = copy.deepcopy(split)
    with torch.no_grad():
        by_group = torch.cat([whole.backbone(part) for part in given.views[0].chunk(2)])
        torch.testing.assert_close(split._in_groups(split.backbone, given.views[0]), by_group)
        assert not torch.allclose(
            by_group, copy.deepcopy(whole).backbone(given.views[0]), atol=1e-3
        )
        # BatchNorm out of the game, the shuffle is nothing but an order that is undone.
        split.momentum_backbone.eval()
        keys = rows(split.momentum_projector, split.momentum_backbone, given.views[1])
        for _ in range(3):
            torch.testing.assert_close(
                split.keys(given.views[1]).double(), keys, rtol=1e-4, atol=1e-5
            )


def test_a_key_is_normalised_among_other_images_than_its_query():
    """The statistics that made each key are those of a group of the shuffled batch."""
    given = batch(8, side=16)
    model = moco(ResNet9(2), splits=2)
    with torch.no_grad():
        in_order = [model.momentum_backbone(part) for part in given.views[1].chunk(2)]
        expected = F.normalize(model.momentum_projector(torch.cat(in_order)))
        torch.manual_seed(5)
        assert not torch.allclose(model.keys(given.views[1]), expected, atol=1e-3)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_queue_and_slow_copy_resume_exactly(resumed_like_new):
    view = MoCoV2Views(16, normalize="half")

    def make():
        options = {"queue_size": 32, "momentum": 0.9, "splits": 2}
        return MoCo(ResNet9(2), view, Optimizer(name="sgd", lr=0.1, warmup_epochs=0), **options)

    whole, _ = resumed_like_new(make)
    assert whole.pointer.item() == 8 * 16 % 32
    slow, fast = whole.momentum_backbone.stem[0].weight, whole.backbone.stem[0].weight
    assert not torch.equal(slow, fast)


@pytest.mark.parametrize(
    ("options", "size", "processes", "said"),
    [
        ({"queue_size": 100}, 16, 1, "queue_size 100 is no multiple of the 16 .*: 96 or 112 is"),
        ({"queue_size": 48}, 16, 2, "queue_size 48 is no multiple of the 32 .*: 32 or 64 is"),
        ({"queue_size": 8}, 16, 1, "queue_size 8 is no multiple of the 16 .*: 16 is"),
        ({"queue_size": 31, "splits": 2}, 15, 1, "batch_size 15 does not come apart into"),
        ({"queue_size": 16}, 1, 2, "batch_size 1 is too small: MoCo needs at least 2"),
        ({"queue_size": 16, "splits": 16}, 16, 1, "16 equal groups of 2 images or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_the_first_step(options, size, processes, said):
    data = load("shapes", "train", limit=16)
    with pytest.raises(ValueError, match=said):
        moco(**options).prepare(data, size, processes)


def test_bad_options():
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), not 1"):
        moco(momentum=1)
    with pytest.raises(ValueError, match="at least 1, not queue_size=0"):
        moco(queue_size=0)
    with pytest.raises(ValueError, match="temperature"):
        moco(temperature=0.0)
