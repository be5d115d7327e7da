"""The arithmetic against torchvision's functional operations, and against loops in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tv
from torchvision.transforms import InterpolationMode

from sslkit.views import functional
from sslkit.views.functional import color_jitter, gaussian_blur, resized_crop, solarize

N = 8
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def images(height=20, width=30, kind="float"):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N, 3, height, width), generator=generator).byte()
    return pixels if kind == "uint8" else pixels / 255


def boxes(height, width):
    generator = torch.Generator().manual_seed(1)
    across, down = (
        1 + (torch.rand(N, generator=generator) * side).long() for side in (width, height)
    )
    left = (torch.rand(N, generator=generator) * (width - across + 1)).long()
    top = (torch.rand(N, generator=generator) * (height - down + 1)).long()
    drawn = torch.stack((left, top, across, down), 1)
    drawn[0] = torch.tensor([0, 0, width, height])
    drawn[1, 2:] = 1
    return drawn


@pytest.fixture(params=["by products", "one by one"])
def path(request, monkeypatch):
    monkeypatch.setattr(functional, "LARGE", 0 if request.param == "one by one" else 10**9)


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize("mode", ["bilinear", "bilinear, not antialiased", "bicubic"])
@pytest.mark.parametrize(
    ("shape", "size"), [((20, 30), (12, 17)), ((20, 30), (33, 40)), ((50, 9), (16, 16))]
)
def test_crop_is_torchvisions(path, shape, size, mode, kind):
    batch, drawn = images(*shape, kind), boxes(*shape)
    flip = torch.arange(N) % 2 == 1
    antialias, mode = "not" not in mode, mode.partition(",")[0]
    ours = resized_crop(batch, drawn, size, flip=flip, mode=mode, antialias=antialias)
    assert ours.shape == (N, 3, *size)
    assert ours.dtype == torch.float32
    for image, (left, top, across, down), mirrored, made in zip(
        batch / 255 if kind == "uint8" else batch, drawn.tolist(), flip, ours, strict=True
    ):
        expected = tv.resized_crop(
            image, top, left, down, across, list(size), MODES[mode], antialias=antialias
        ).clamp(0, 1)
        expected = tv.horizontal_flip(expected) if mirrored else expected
        # Bytes are rounded by torch's filter, twice: after the columns and after the rows.
        allowed = 1.1 / 255 if kind == "uint8" and mode == "bilinear" else 3e-5
        assert (made - expected).abs().max() <= allowed


def test_bicubic_bytes_are_within_one_step_of_torchvisions_bytes_on_a_smooth_image(path):
    ramp = torch.linspace(30, 220, 40).byte().expand(1, 3, 30, 40).contiguous()
    ours = resized_crop(ramp, torch.tensor([[3, 2, 30, 25]]), (16, 16), mode="bicubic")
    theirs = tv.resized_crop(ramp, 2, 3, 25, 30, [16, 16], MODES["bicubic"], antialias=True)
    assert (ours - theirs / 255).abs().max() <= 1 / 255 + 1e-6


def test_nearest_takes_pixels_as_they_are():
    batch, drawn = images(), boxes(20, 30)
    ours = resized_crop(batch, drawn, (11, 13), mode="nearest")
    for image, (left, top, across, down), made in zip(batch, drawn.tolist(), ours, strict=True):
        crop = image[None, :, top : top + down, left : left + across]
        assert torch.equal(F.interpolate(crop, (11, 13), mode="nearest-exact")[0], made)


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_whole_image_at_its_size_is_the_image_bit_for_bit(path, kind, mode):
    batch = images(24, 24, kind)
    made = resized_crop(batch, torch.tensor([[0, 0, 24, 24]] * N), (24, 24), mode=mode)
    assert torch.equal(made, batch * (1 / 255) if kind == "uint8" else batch)


def test_memory_layout_does_not_matter(path):
    batch, drawn = images(kind="uint8"), boxes(20, 30)
    expected = resized_crop(batch, drawn, (16, 16))
    other = batch.contiguous(memory_format=torch.channels_last)
    assert torch.equal(expected, resized_crop(other, drawn, (16, 16)))
    single = batch[:, :1]
    made = resized_crop(single.expand(-1, 3, -1, -1), drawn, (16, 16))
    assert torch.equal(made[:, :1], resized_crop(single, drawn, (16, 16)))


ONE, ZERO = torch.ones(N), torch.zeros(N)
SINGLE = [
    ("brightness", tv.adjust_brightness, 0),
    ("contrast", tv.adjust_contrast, 1),
    ("saturation", tv.adjust_saturation, 2),
]


@pytest.mark.parametrize(("name", "reference", "place"), SINGLE)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.2, 1.8])
def test_each_factor_is_torchvisions(name, reference, place, factor):
    factors = [ONE, ONE, ONE, ZERO]
    factors[place] = torch.full((N,), factor)
    batch = images()
    torch.testing.assert_close(
        color_jitter(batch, *factors), reference(batch, factor), atol=3e-4, rtol=0
    )


def test_grayscale_is_torchvisions():
    batch = images()
    grey = tv.rgb_to_grayscale(batch, 3)
    assert (color_jitter(batch, ONE, ONE, ZERO, ZERO) - grey).abs().max() <= 1 / 255
    made = color_jitter(batch, ONE, ONE, ONE, ZERO, grayscale=ONE.bool())
    assert (made - grey).abs().max() <= 1 / 255


def loop(pixel, mean, order, brightness, contrast, saturation, hue):
    """One pixel and the mean of its image through the four, one at a time, in float64."""
    luma = torch.tensor(functional.LUMA, dtype=torch.float64)
    axis = torch.full((3,), 3**-0.5, dtype=torch.float64)
    angle = 2 * math.pi * hue
    for step in order:
        contrast_to = luma @ mean
        made = []
        for x in (pixel, mean):
            if step == 0:
                x = brightness * x
            elif step == 1:
                x = contrast * x + (1 - contrast) * contrast_to
            elif step == 2:
                x = saturation * x + (1 - saturation) * (luma @ x)
            else:  # Rodrigues
                along = axis * (axis @ x)
                turned = torch.linalg.cross(axis, x)
                x = along + math.cos(angle) * (x - along) + math.sin(angle) * turned
            made.append(x)
        pixel, mean = made
    return pixel


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_four_factors_in_any_order_are_one_matrix(order):
    batch = 0.4 + 0.1 * images(3, 3)  # far from the clamps
    factors = (torch.rand(4, N, generator=torch.Generator().manual_seed(0)) * 0.4) + 0.8
    factors[3] -= 1
    grey = torch.arange(N) % 4 == 3
    made = color_jitter(batch, *factors, order=torch.tensor([order] * N), grayscale=grey)
    for n in range(N):
        mean = batch[n].double().mean((1, 2))
        for y, x in ((0, 0), (2, 1)):
            expected = loop(batch[n, :, y, x].double(), mean, order, *factors[:, n].tolist())
            if grey[n]:
                expected = (torch.tensor(functional.LUMA).double() @ expected).expand(3)
            assert (made[n, :, y, x] - expected).abs().max() < 2e-6


def test_hue_turns_as_torchvisions_does():
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1)
    for turn in (-1 / 3, -0.2, 0.2, 1 / 3):
        ours = color_jitter(red, *torch.ones(3, 1), torch.tensor([turn])).flatten()
        theirs = tv.adjust_hue(red, turn).flatten()
        opposite = tv.adjust_hue(red, -turn).flatten()
        assert (ours - theirs).norm() < 0.35 * (ours - opposite).norm()


def test_the_jitter_stays_near_torchvisions():
    """Its difference from clamping once and from another hue; eval/jitter.py has real images."""
    smooth = F.interpolate(images(4, 4), 24, mode="bicubic").clamp(0, 1)
    generator = torch.Generator().manual_seed(2)
    factors = 1 + 0.8 * (torch.rand(4, N, generator=generator) - 0.5) * 2
    factors[3] = 0.2 * (torch.rand(N, generator=generator) - 0.5) * 2
    order = torch.rand(N, 4, generator=generator).argsort(1)
    ours = color_jitter(smooth, *factors, order=order)
    steps = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    theirs = smooth.clone()
    for n in range(N):
        for i in order[n].tolist():
            theirs[n] = steps[i](theirs[n], factors[i, n].item())
    assert (ours - theirs).abs().mean() < 0.25 * (smooth - theirs).abs().mean()


def test_normalisation_is_folded_in():
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    factors = torch.rand(4, N) + 0.5
    plain = color_jitter(images(), *factors)
    folded = color_jitter(images(), *factors, mean=mean, std=std)
    torch.testing.assert_close(folded, tv.normalize(plain, mean, std), atol=1e-5, rtol=0)


def test_neutral_colours_are_the_identity_bit_for_bit():
    batch = images()
    assert torch.equal(color_jitter(batch, ONE, ONE, ONE, ZERO), batch)


@pytest.mark.parametrize("size", [1, 3, 9])
def test_blur_is_torchvisions(size):
    sigma = torch.linspace(0.1, 2, N)
    made = gaussian_blur(images(), sigma, size)
    for image, s, ours in zip(images(), sigma.tolist(), made, strict=True):
        expected = tv.gaussian_blur(image, [size, size], [s, s])
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_solarize_is_torchvisions():
    thresholds = torch.linspace(0, 1, N)
    made = solarize(images(), thresholds)
    for image, threshold, ours in zip(images(), thresholds.tolist(), made, strict=True):
        assert torch.equal(ours, tv.solarize(image, threshold))


def chain(batch, drawn):
    made = resized_crop(batch, drawn, (16, 16), flip=ONE.bool())
    order = torch.tensor([[3, 1, 0, 2]] * N)
    made = color_jitter(made, ONE / 2, ONE * 1.2, ONE * 1.5, ONE / 10, order=order)
    return solarize(gaussian_blur(made, ONE, 3), ONE / 2)


def test_nan_stays_in_its_image():
    batch, drawn = images(), boxes(20, 30)
    bad = batch.clone()
    bad[3, :, 5] = torch.nan
    bad[3, :, :, 7] = torch.nan
    drawn[3] = torch.tensor([0, 0, 30, 20])
    good = torch.arange(N) != 3
    assert torch.equal(chain(bad, drawn)[good], chain(batch, drawn)[good])
    assert chain(bad, drawn)[3].isnan().any()


def test_compiled_in_one_graph():
    batch, drawn = images(), boxes(20, 30)
    compiled = torch.compile(chain, fullgraph=True)
    torch.testing.assert_close(compiled(batch, drawn), chain(batch, drawn), atol=1e-5, rtol=0)


def test_gradients_reach_the_images():
    batch = images(16, 16).requires_grad_()
    stats = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    made = resized_crop(batch, torch.tensor([[2, 2, 9, 9]] * N), (8, 8))
    color_jitter(made, ONE, ONE, ONE, ZERO, **stats).sum().backward()
    assert batch.grad[:, :, 3:9, 3:9].min() > 0
    assert batch.grad[:, :, 12:].abs().max() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_makes_the_same():
    batch, drawn = images(kind="uint8"), boxes(20, 30)
    torch.testing.assert_close(
        chain(batch.cuda(), drawn).cpu(), chain(batch, drawn), atol=1e-3, rtol=0
    )
