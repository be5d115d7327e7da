import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sslkit.losses import soft_cross_entropy
from sslkit.views.mixing import CutMix, MixUp
from sslkit.views.noise import smooth_targets

BOTH = pytest.mark.parametrize("kind", [MixUp, CutMix])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def batch(n=12, classes=4, size=(5, 7), dtype=torch.float32):
    return torch.randn(n, 3, *size, dtype=dtype), torch.randint(classes, (n,))


def numbered(n, size):
    """Image i is i everywhere: each pixel tells where it comes from."""
    return torch.arange(n).float()[:, None, None, None].expand(n, 1, *size)


def loop_mixup(image, other, drawn, i):
    share = drawn["mixup_lambdas"][i].double().item()
    return (1 - share) * image + share * other, share


def loop_cutmix(image, other, drawn, i):
    box = drawn["crop_src"][0, i].long()
    (left, top), (right, bottom) = box[0].tolist(), box[2].tolist()
    image, pasted = image.clone(), 0
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            image[:, y, x] = other[:, y, x]
            pasted += 1
    return image, pasted / (image.shape[1] * image.shape[2])


@pytest.mark.parametrize("p", [0.5, 1.0])
@pytest.mark.parametrize(("soft", "different"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@BOTH
def test_equals_a_loop_over_images(kind, dtype, different, soft, p):
    images, labels = batch(dtype=dtype)
    given_labels = torch.randn(12, 4).softmax(1) if soft else labels
    mixing = kind(4, p=p, different_labels=different)
    made, targets = mixing(images, given_labels)
    drawn, loop = mixing.mix._params, {MixUp: loop_mixup, CutMix: loop_cutmix}[kind]
    one_hot = given_labels if soft else torch.eye(4)[labels]
    for i, j in enumerate(drawn[mixing.pairs].flatten().tolist()):
        image, target = images[i].double(), one_hot[i].double()
        if drawn["batch_prob"][i]:
            image, share = loop(image, images[j].double(), drawn, i)
            target = (1 - share) * target + share * one_hot[j].double()
        torch.testing.assert_close(made[i].double(), image, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(targets[i].double(), target, rtol=1e-6, atol=1e-6)
    assert made.dtype == dtype
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(1), torch.ones(12))
    assert 0 < drawn["batch_prob"].sum() <= 12
    assert (drawn["batch_prob"].sum() < 12) == (p < 1)


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 9), (16, 3)])
def test_the_share_of_cutmix_is_that_of_the_pixels_pasted(size):
    n = 64
    images, targets = CutMix(n)(numbered(n, size), torch.arange(n))
    counts = F.one_hot(images.flatten(1).long(), n).sum(1)
    shares = counts / (size[0] * size[1])
    torch.testing.assert_close(targets, shares, rtol=0, atol=1e-7)
    assert torch.equal(targets > 0, counts > 0)


def test_the_share_of_mixup_is_that_of_the_pixels():
    n = 64
    images, targets = MixUp(n)(torch.eye(n).view(n, n, 1, 1), torch.arange(n))
    torch.testing.assert_close(targets, images.flatten(1))


def p_of_beta(alpha, edges, bins):
    """Whether values known by their bin alone are from Beta: a p-value of Kolmogorov-Smirnov.

    A uniform draw between the distribution's values at a bin's edges is uniform in [0, 1]. Half
    of Beta(0.2, 0.2) is near 0 or 1, and percents of it nearer than float32 tells from 1.
    """
    below = torch.from_numpy(stats.beta(alpha, alpha).cdf(edges.double().numpy()))
    low, high = below[bins], below[bins + 1]
    return stats.kstest((low + torch.rand(len(bins)) * (high - low)).numpy(), "uniform").pvalue


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_weights_of_mixup_are_from_beta(alpha):
    labels = torch.arange(20000) % 2
    _, targets = MixUp(2, alpha, different_labels=True)(torch.zeros(20000, 1, 1, 1), labels)
    weights = targets.gather(1, labels[:, None]).flatten()
    bins = (weights * 1000).long().clamp_max(999)
    assert p_of_beta(alpha, torch.arange(1001) / 1000, bins) > 0.01


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_boxes_of_cutmix_are_from_beta(alpha):
    labels, side = torch.arange(20000) % 2, 16
    images = torch.zeros(20000, 1, side, side)
    _, targets = CutMix(2, alpha, different_labels=True)(images, labels)
    area = targets.gather(1, 1 - labels[:, None]).flatten() * side**2
    box = area.sqrt().round()  # the side, rounded down
    torch.testing.assert_close(box**2, area, rtol=0, atol=1e-4)
    edges = (torch.arange(side + 1) / side) ** 2
    assert p_of_beta(alpha, edges, box.long().clamp_max(side - 1)) > 0.01


@BOTH
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    dtype=st.sampled_from([torch.int64, torch.int32, torch.uint8]),
)
def test_different_labels_never_pairs_one_class(kind, labels, dtype):
    n, labels = len(labels), torch.tensor(labels, dtype=dtype)
    mixing = kind(4, different_labels=True)
    images, targets = mixing(numbered(n, (4, 4)), labels)
    partner = mixing.mix._params[mixing.pairs].flatten()
    mixed = mixing.mix._params["batch_prob"].bool()
    assert mixed.tolist() == [(labels != label).any().item() for label in labels]
    assert (labels[partner] != labels)[mixed].all()
    assert torch.equal(images[~mixed], numbered(n, (4, 4))[~mixed])
    assert torch.equal(targets[~mixed], torch.eye(4)[labels.long()][~mixed])
    if kind is CutMix:
        source = images.flatten(1).long()  # (N, pixels)
        itself = source == torch.arange(n)[:, None]
        assert (itself | (labels[source] != labels[:, None])).all()


@BOTH
def test_different_labels_pairs_uniformly(kind):
    labels = torch.tensor([2, 0, 1, 0, 3, 0, 1])
    mixing, counts = kind(4, different_labels=True), torch.zeros(7, 7)
    for _ in range(1000):
        mixing(torch.zeros(7, 1, 2, 2), labels)
        counts[torch.arange(7), mixing.mix._params[mixing.pairs].flatten()] += 1
    for i in range(7):
        others = labels != labels[i]
        assert counts[i][~others].sum() == 0
        assert stats.chisquare(counts[i][others]).pvalue > 0.001


@BOTH
def test_without_it_pairs_are_a_permutation(kind):
    mixing = kind(4)
    mixing(*batch(50))
    assert mixing.mix._params[mixing.pairs].flatten().sort().values.tolist() == list(range(50))


@BOTH
def test_the_loss_is_the_weighted_cross_entropies(kind):
    images, labels = batch(10)
    mixing, logits = kind(4), torch.randn(10, 4)
    _, targets = mixing(images, labels)
    drawn, total = mixing.mix._params, 0.0
    for i, j in enumerate(drawn[mixing.pairs].flatten().tolist()):
        loop = {MixUp: loop_mixup, CutMix: loop_cutmix}[kind]
        _, share = loop(images[i], images[j], drawn, i)
        own = F.cross_entropy(logits[i], labels[i])
        total += (1 - share) * own + share * F.cross_entropy(logits[i], labels[j])
    torch.testing.assert_close(soft_cross_entropy(logits, targets), total / 10)


def test_mixes_follow_smoothing_and_each_other():
    images, labels = batch()
    mixed = CutMix(4)(*MixUp(4)(images, smooth_targets(labels, 4, 0.1)))
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(12))
    assert mixed.targets.min() >= 0.1 / 4 - 1e-6
    torch.manual_seed(1)
    before = MixUp(4)(images, smooth_targets(labels, 4, 0.1)).targets
    torch.manual_seed(1)
    after = smooth_targets(MixUp(4)(images, labels).targets, 4, 0.1)
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@BOTH
def test_p_0_changes_no_bit(kind, dtype):
    images, labels = batch(dtype=dtype)
    images[0, 0, 0, :4] = torch.tensor([-0.0, torch.inf, -torch.inf, torch.nan])
    made, targets = kind(4, p=0.0)(images, labels)
    assert torch.equal(made.view(torch.uint8), images.view(torch.uint8))
    assert torch.equal(targets, torch.eye(4)[labels])


@BOTH
def test_one_class_stays_as_it_is(kind):
    images, _ = batch()
    images[0, 0, 0, :2] = torch.tensor([-0.0, torch.nan])
    made, targets = kind(4, different_labels=True)(images, torch.full((12,), 2))
    assert torch.equal(made.view(torch.uint8), images.view(torch.uint8))
    assert torch.equal(targets, torch.eye(4)[torch.full((12,), 2)])


@BOTH
def test_p_is_the_probability_of_each_image(kind):
    labels = torch.arange(4000) % 2
    images = numbered(4000, (8, 8))
    made, targets = kind(2, alpha=8.0, p=0.3, different_labels=True)(images, labels)
    changed = (made != images).any(-1).any(-1).any(-1)
    assert stats.binomtest(int(changed.sum()), 4000, 0.3).pvalue > 0.001
    assert torch.equal(changed, targets.amax(1) < 1)


@pytest.mark.parametrize("different", [False, True])
@BOTH
def test_one_image_and_none(kind, different):
    mixing = kind(4, different_labels=different)
    images, labels = batch(1)
    made, targets = mixing(images, labels)
    torch.testing.assert_close(made, images)
    torch.testing.assert_close(targets, torch.eye(4)[labels])
    made, targets = mixing(images[:0], labels[:0])
    assert made.shape == (0, 3, 5, 7)
    assert targets.shape == (0, 4)
    assert targets.dtype == torch.float32


@BOTH
def test_the_seed_decides_and_the_input_stays(kind):
    images, labels = batch(40, size=(60, 80))
    before, mixing = images.clone(), kind(4, p=0.8)
    made = []
    # Moving the module to a narrow dtype does not coarsen what kornia draws.
    for module in (mixing, pickle.loads(pickle.dumps(mixing)), kind(4, p=0.8).bfloat16().eval()):
        torch.manual_seed(3)
        made.append(module(images, labels))
    for other in made[1:]:
        assert torch.equal(made[0].images, other.images)
        assert torch.equal(made[0].targets, other.targets)
    assert not torch.equal(made[0].images, mixing(images, labels).images)
    assert torch.equal(images, before)
    assert not mixing.state_dict()


@BOTH
def test_float32_under_autocast_and_for_half_images(kind):
    images, labels = batch()
    images, made = images.bfloat16(), []
    for half, autocast in ((False, False), (False, True), (True, False), (True, True)):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            made.append(kind(4)(images if half else images.float(), labels))
    for mixed, half in zip(made, (False, False, True, True), strict=True):
        expected = made[0].images.bfloat16() if half else made[0].images
        assert mixed.images.dtype == expected.dtype
        assert torch.equal(mixed.images, expected)
        assert torch.equal(mixed.targets, made[0].targets)


@BOTH
def test_the_gradient_passes(kind):
    images, labels = batch()
    kind(4, p=0.7)(images.requires_grad_(), labels).images.sum().backward()
    torch.testing.assert_close(images.grad.sum(), torch.tensor(float(images.numel())))


@pytest.mark.parametrize("labels", [torch.zeros(4).byte(), torch.zeros(4, dtype=torch.int8)])
def test_labels_of_few_bits(labels):
    _, targets = MixUp(300)(torch.zeros(4, 1, 2, 2), labels)
    torch.testing.assert_close(targets, torch.eye(300)[torch.zeros(4).long()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "alpha must be a finite number above 0, not 0"),
        ({"alpha": -1.0}, "above 0, not -1.0"),
        ({"alpha": float("nan")}, "above 0, not nan"),
        ({"alpha": float("inf")}, "above 0, not inf"),
        ({"p": 1.5}, r"p must be a probability, in \[0, 1\], not 1.5"),
        ({"p": -0.1}, "not -0.1"),
        ({"p": float("nan")}, "not nan"),
        ({"classes": 0}, "classes must be a whole number, at least 1, not 0"),
        ({"classes": 10.0}, "whole number, at least 1, not 10.0"),
    ],
)
@BOTH
def test_bad_options(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


IMAGES, LABELS = torch.zeros(4, 3, 2, 2), torch.zeros(4).long()


@pytest.mark.parametrize(
    ("images", "labels", "options", "message"),
    [
        (IMAGES[0], LABELS, {}, r"\(N, C, H, W\) with a pixel, not torch.float32 .* \(3, 2, 2\)"),
        (IMAGES[..., :0], LABELS, {}, r"with a pixel, .* \(4, 3, 2, 0\)"),
        (IMAGES.byte(), LABELS, {}, "images must be floating-point .* not torch.uint8"),
        ([0], LABELS, {}, "images must be a tensor, not list"),
        (IMAGES, [0] * 4, {}, "labels must be a tensor, not list"),
        (IMAGES, LABELS[:3], {}, "labels must have a row for each of 4 images, not 3"),
        (IMAGES, LABELS[:0], {}, "each of 4 images, not 0"),
        (IMAGES, LABELS + 5, {}, r"labels must be in \[0, 5\), not 5"),
        (IMAGES, LABELS - 100, {}, r"labels must be in \[0, 5\), not -100"),
        (IMAGES, LABELS.float(), {}, r"integers \(N,\) or .* \(N, 5\), not torch.float32 of .*4,"),
        (IMAGES, torch.ones(4, 6), {}, r"\(N, 5\), not torch.float32 of shape \(4, 6\)"),
        (IMAGES, LABELS.bool(), {}, "not torch.bool"),
        (
            IMAGES,
            torch.ones(4, 5),
            {"different_labels": True},
            r"labels must be 4 integers, one a row, not float32 of shape \(4, 5\)",
        ),
    ],
)
@BOTH
def test_bad_input(kind, images, labels, options, message):
    with pytest.raises(ValueError, match=message):
        kind(5, **options)(images, labels)
