"""The transforms as kornia augmentations: what is drawn, gated, replayed, composed, refused."""

import math

import kornia.augmentation as K
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import v2

from sslkit.views import ColorJitterGrayscale, GaussianBlur, RandomResizedCropFlip, Solarize

DRAWS = 1500


def images(n=6, height=20, width=30):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def same_law(ours, theirs):
    """Two samples of one distribution, as far as Kolmogorov and Smirnov can tell."""
    return ks_2samp(ours, theirs).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(32, 32), (40, 100), (9, 200), (200, 9)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 0.6)])
def test_crops_are_drawn_as_torchvision_draws_them(shape, scale):
    torch.manual_seed(0)
    ours = RandomResizedCropFlip((32, 32), scale).generate_parameters((DRAWS, 3, *shape))["box"]
    crop, image = v2.RandomResizedCrop(32, scale), torch.zeros(1, *shape)
    drawn = [crop.make_params([image]) for _ in range(DRAWS)]
    names = ("top", "left", "height", "width")
    theirs = torch.tensor([[d[name] for name in names] for d in drawn]).float()
    top, left, down, across = theirs.T
    for ours_, theirs_ in (
        (ours[:, 0], left),
        (ours[:, 1], top),
        (ours[:, 2], across),
        (ours[:, 3], down),
        (ours[:, 2] * ours[:, 3], across * down),
        (ours[:, 2] / ours[:, 3], across / down),
    ):
        assert same_law(ours_, theirs_)


def test_colours_are_drawn_as_torchvision_draws_them():
    torch.manual_seed(0)
    ours = ColorJitterGrayscale(0.8, 0.4, 1.2, 0.2).generate_parameters((DRAWS, 3, 8, 8))
    jitter = v2.ColorJitter(0.8, 0.4, 1.2, 0.2)
    theirs = [jitter.make_params([torch.zeros(3, 8, 8)]) for _ in range(DRAWS)]
    for name in ("brightness", "contrast", "saturation", "hue"):
        assert same_law(ours[f"{name}_factor"], [t[f"{name}_factor"] for t in theirs])


@pytest.mark.parametrize(
    ("transform", "name", "limits"),
    [
        (GaussianBlur(5, (0.1, 2.0)), "sigma", (0.1, 2.0)),
        (Solarize((0.2, 0.9)), "threshold", (0.2, 0.9)),
        (ColorJitterGrayscale(hue=(-0.5, 0.1)), "hue_factor", (-0.5, 0.1)),
    ],
)
def test_others_are_uniform(transform, name, limits):
    torch.manual_seed(0)
    values = transform.generate_parameters((DRAWS, 3, 8, 8))[name]
    assert kstest(values, "uniform", (limits[0], limits[1] - limits[0])).pvalue > 1e-3


def test_every_order_of_the_factors_is_as_likely():
    torch.manual_seed(0)
    order = ColorJitterGrayscale(0.5).generate_parameters((DRAWS, 3, 8, 8))["order"]
    assert order.sort(1).values.eq(torch.arange(4)).all()
    _, counts = order.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_gates_open_as_often_as_they_should(p):
    torch.manual_seed(0)
    batch = torch.full((DRAWS, 3, 2, 2), 0.75) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1)
    for transform in (
        ColorJitterGrayscale(brightness=(0.5, 0.5), p=p),
        ColorJitterGrayscale(grayscale=p, p=0),
        Solarize(p=p),
        RandomResizedCropFlip((2, 2), (0.2, 0.3), flip=0, p=p),
    ):
        made = transform(batch)
        share = (made != batch).flatten(1).any(1).float().mean().item()
        if isinstance(transform, RandomResizedCropFlip):
            share = (transform._params["box"][:, 2] < 2).float().mean().item()
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / DRAWS)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.floats(0.1, 10),
)
def test_no_crop_leaves_its_image(height, width, low, high, ratio):
    low, high = sorted((low, high))
    crop = RandomResizedCropFlip((4, 4), (low, high), (ratio / 2, ratio * 2))
    if high * height * width < 1:
        with pytest.raises(ValueError, match="smaller than a pixel"):
            crop.generate_parameters((64, 3, height, width))
        return
    left, top, across, down = crop.generate_parameters((64, 3, height, width))["box"].T
    assert left.min() >= 0
    assert top.min() >= 0
    assert min(across.min(), down.min()) >= 1
    assert (left + across).max() <= width
    assert (top + down).max() <= height
    for value in (left, top, across, down):
        assert torch.equal(value, value.round())


@pytest.mark.parametrize("size", [(20, 30), (80, 90)])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_without_probability_nothing_changes_bit_for_bit(size, resample):
    batch = images(height=size[0], width=size[1])
    transforms = (
        RandomResizedCropFlip(size, resample=resample, p=0),
        ColorJitterGrayscale(0.8, 0.8, 0.8, 0.2, p=0),
        GaussianBlur(5, p=0),
        Solarize(p=0),
    )
    for transform in transforms:
        made = transform(batch)
        assert torch.equal(made, batch)
        assert made.data_ptr() != batch.data_ptr()
    # The spared images of a batch likewise.
    jitter = ColorJitterGrayscale(0.8, 0.8, 0.8, 0.2, p=0.5)
    made = jitter(batch)
    spared = jitter._params["batch_prob"] < 0.5
    assert torch.equal(made[spared], batch[spared])


TRANSFORMS = [
    RandomResizedCropFlip((12, 16), (0.2, 0.9)),
    ColorJitterGrayscale(0.8, 0.8, 0.8, 0.2, 0.2, p=0.8),
    GaussianBlur(5, p=0.7),
    Solarize(p=0.5),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_parameters_replay_and_dtype_stays(transform, dtype):
    batch = images().to(dtype)
    made = transform(batch)
    assert made.dtype == dtype
    assert torch.equal(made, transform(batch, params=transform._params))
    assert transform(batch[0]).ndim == 4


MAKERS = [
    lambda **k: RandomResizedCropFlip((8, 8), **k),
    lambda **k: ColorJitterGrayscale(0.8, 0.8, 0.8, 0.2, 0.5, **k),
    lambda **k: GaussianBlur(3, p=1.0, **k),
    lambda **k: Solarize((0.0, 1.0), **k),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_neither_default_dtype_nor_autocast_nor_a_moved_model_matters(transform, default):
    batch = images(height=400, width=375)
    try:
        torch.set_default_dtype(default)
        torch.nn.Sequential(transform).to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            made = transform(batch)
    finally:
        torch.set_default_dtype(torch.float32)
    assert made.dtype == torch.float32
    drawn = transform._params
    if "box" in drawn:
        assert (drawn["box"][:, 0] + drawn["box"][:, 2]).max() <= 375
    assert all(v.dtype != torch.bfloat16 for k, v in drawn.items())
    torch.testing.assert_close(made, transform(batch, params=drawn), atol=1e-6, rtol=0)


@pytest.mark.parametrize("transform", [GaussianBlur(5, p=0.5), Solarize((0.3, 0.7), p=0.5)])
def test_only_the_chosen_images_change(transform):
    torch.manual_seed(0)
    batch = images(16)
    made = transform(batch)
    chosen = transform._params["batch_prob"] > 0.5
    assert 0 < chosen.sum() < 16
    assert torch.equal((made != batch).flatten(1).any(1), chosen)
    for i in chosen.nonzero().flatten().tolist():
        if isinstance(transform, Solarize):
            expected = v2.functional.solarize(batch[i], transform._params["threshold"][i].item())
        else:
            sigma = transform._params["sigma"][i].item()
            expected = v2.functional.gaussian_blur(batch[i], [5, 5], [sigma, sigma])
        torch.testing.assert_close(made[i], expected, atol=1e-5, rtol=0)


def test_keepdim_gives_an_image_back():
    for make in MAKERS:
        assert make(keepdim=True)(images()[0]).ndim == 3


@pytest.mark.parametrize("make", MAKERS)
def test_same_on_batch(make):
    torch.manual_seed(0)
    batch = images(1).expand(16, -1, -1, -1)
    alike = make(same_on_batch=True)(batch)
    assert (alike == alike[:1]).all()
    assert not (made := make(same_on_batch=False)(batch)).equal(made[:1].expand_as(made))


def test_composes_with_kornias_own():
    torch.manual_seed(0)
    batch = images(4, 40, 50)
    masks = (torch.rand(4, 1, 40, 50) > 0.5).float()
    points = torch.tensor([[[12.0, 9.0], [30.0, 22.0]]]).expand(4, 2, 2).clone()
    frame = torch.tensor([[[[5.0, 5], [15, 5], [15, 15], [5, 15]]]]).expand(4, 1, 4, 2).clone()
    chain = K.AugmentationSequential(
        *TRANSFORMS, K.RandomHorizontalFlip(), data_keys=["input", "mask", "keypoints", "bbox"]
    )
    made = chain(batch, masks, points, frame)
    assert [tuple(x.shape) for x in made[:3]] == [(4, 3, 12, 16), (4, 1, 12, 16), (4, 2, 2)]
    assert set(made[1].unique().tolist()) <= {0.0, 1.0}
    again = chain(batch, masks, points, frame, params=chain._params)
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    back = chain.inverse(*made)
    assert back[0].shape == batch.shape
    torch.testing.assert_close(back[2], points, atol=1e-3, rtol=0)
    torch.testing.assert_close(back[3], frame, atol=1e-3, rtol=0)


def test_keypoints_masks_and_inverse_follow_the_pixels():
    torch.manual_seed(0)
    yx = torch.stack(torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij"))
    batch = torch.cat((yx, yx[:1]))[None].repeat(16, 1, 1, 1) / 80  # a pixel tells its place
    crop = RandomResizedCropFlip((32, 32), (0.3, 0.6), antialias=False)
    chain = K.AugmentationSequential(crop, data_keys=["input", "mask"])
    made, mask = chain(batch, batch[:, :1])
    y, x = made[:, 0] * 80, made[:, 1] * 80
    at = torch.tensor([[[20.0, 11.0, 1.0]]])  # column, row
    matrix = crop.transform_matrix
    place = torch.stack((x[:, 11, 20], y[:, 11, 20], torch.ones(16)), 1)[:, :, None]
    torch.testing.assert_close(
        (matrix @ place)[:, :2, 0], at[0, :, :2].expand(16, 2), atol=0.02, rtol=0
    )
    assert (mask[:, 0] * 80 - y).abs().max() <= 0.51  # the nearest pixel's
    back = chain.inverse(made, mask)[0]
    inside = back[:, 2] > 0
    share = inside.float().mean().item()
    assert 0.15 < share < 0.7
    for n, (left, top, across, down) in enumerate(crop._params["box"].int().tolist()):
        whole = (slice(top + 2, top + down - 2), slice(left + 2, left + across - 2))
        torch.testing.assert_close(back[n, 1][whole], batch[n, 1][whole], atol=0.01, rtol=0)
        outside = back[n].clone()
        outside[:, max(top - 2, 0) : top + down + 2, max(left - 2, 0) : left + across + 2] = 0
        assert outside.abs().max() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCropFlip((0, 8)), r"1 pixel or more, not \(0, 8\)"),
        (lambda: RandomResizedCropFlip((8, 8), (0.5, 0.2)), r"scale.*low <= high.*\(0.5, 0.2\)"),
        (lambda: RandomResizedCropFlip((8, 8), (0.0, 1.0)), r"scale must be 0 < low.*\(0.0, 1.0\)"),
        (lambda: RandomResizedCropFlip((8, 8), (0.5, 1.5)), r"<= 1, not \(0.5, 1.5\)"),
        (lambda: RandomResizedCropFlip((8, 8), (math.nan, 1)), "nan"),
        (lambda: RandomResizedCropFlip((8, 8), ratio=(2, 1)), r"ratio.*\(2, 1\)"),
        (lambda: RandomResizedCropFlip((8, 8), flip=1.5), "flip must be a probability.*1.5"),
        (lambda: RandomResizedCropFlip((8, 8), p=-0.1), "p must be a probability.*-0.1"),
        (lambda: RandomResizedCropFlip((8, 8), resample="lanczos"), "bicubic, not 'lanczos'"),
        (lambda: RandomResizedCropFlip((8, 8), resample="bicubic", antialias=False), "antialias"),
        (lambda: ColorJitterGrayscale(-1), "brightness must be 0 or more.*-1"),
        (lambda: ColorJitterGrayscale(contrast=(2, 1)), r"contrast.*\(2, 1\)"),
        (lambda: ColorJitterGrayscale(hue=0.6), "hue must be 0 to 0.5.*0.6"),
        (lambda: ColorJitterGrayscale(hue=(-0.7, 0)), r"hue.*\(-0.7, 0\)"),
        (lambda: ColorJitterGrayscale(grayscale=2), "grayscale must be a probability.*2"),
        (lambda: ColorJitterGrayscale(p=math.nan), "p must be a probability.*nan"),
        (lambda: GaussianBlur(4), "odd.*4"),
        (lambda: GaussianBlur(3, (0.0, 1.0)), r"sigma must be 0 < low.*\(0.0, 1.0\)"),
        (lambda: Solarize((0.5, 1.5)), r"threshold.*\(0.5, 1.5\)"),
        (lambda: Solarize(p=2), "p must be a probability.*2"),
        (lambda: ColorJitterGrayscale(0.5)(torch.rand(2, 1, 8, 8)), "3 channels, not 1"),
        (lambda: GaussianBlur(9, p=1)(torch.rand(2, 3, 4, 9)), "more than 4 pixels.*4 x 9"),
        (lambda: RandomResizedCropFlip((8, 8), (0.1, 0.2))(torch.rand(2, 3, 2, 2)), "2 x 2"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_empty_batch_stays_empty():
    for transform in TRANSFORMS:
        assert len(transform(torch.rand(0, 3, 20, 30))) == 0
