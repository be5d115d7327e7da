import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from sslkit.views import EvaluationView, SimCLRViews


def images(n=6, channels=3, height=40, width=50):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator).byte()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["uint8", "float", "channels_last"])
def test_shapes_range_and_dtype(channels, kind):
    batch = images(channels=channels)
    if kind == "float":
        batch = batch / 255
    if kind == "channels_last":
        batch = batch.contiguous(memory_format=torch.channels_last)
    views = SimCLRViews(32, normalize=None)(batch)
    assert len(views) == 2
    for view in views:
        assert view.shape == (6, 3, 32, 32)
        assert view.dtype == torch.float32
        assert 0 <= view.min() <= view.max() <= 1
    assert not torch.equal(*views)


def test_normalisation_is_that_of_torchvision():
    view = SimCLRViews(32, normalize="imagenet")
    batch = torch.rand(4, 3, 32, 32)
    expected = v2.functional.normalize(batch, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(view.normalized(batch), expected)
    torch.testing.assert_close(view.denormalize(expected), batch)


def test_same_seed_same_views_and_next_call_others():
    view, batch = SimCLRViews(32), images()
    first, then = view.manual_seed(1)(batch), view(batch)
    again = view.manual_seed(1)(batch)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], then[0])


def test_float32_and_no_gradient_under_autocast():
    batch = (images() / 255).requires_grad_()
    view = SimCLRViews(32)
    plain = view.manual_seed(0)(batch)[0]
    with torch.autocast("cpu", torch.bfloat16):
        under = view.manual_seed(0)(batch)[0]
    assert torch.equal(plain, under)
    assert not under.requires_grad


def test_nothing_random_is_the_identity():
    view = SimCLRViews(32, scale=(1.0, 1.0), jitter=0, grayscale=0, blur=False, normalize=None)
    batch = torch.rand(64, 3, 32, 32)
    for made in view(batch):
        same = (made - batch).abs().amax((1, 2, 3)) < 1e-4
        flipped = (made - batch.flip(3)).abs().amax((1, 2, 3)) < 1e-4
        # A square whole crop now and then rounds to 31 pixels (torchvision's rule as well).
        assert (same | flipped).float().mean() > 0.5
        assert same.any()
        assert flipped.any()


def test_grayscale_share():
    view = SimCLRViews(8, jitter=0, blur=False, normalize=None)
    made, _ = view(torch.rand(2000, 3, 8, 8))
    grey = (made.amax(1) - made.amin(1)).amax((1, 2)) < 1e-5
    assert 0.16 < grey.float().mean() < 0.24


def test_evaluation_view_is_pillows_resize_and_crop():
    batch = images(n=2, height=96, width=128)
    made = EvaluationView(48, None)(batch)
    for image, ours in zip(batch, made, strict=True):
        pil = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((64, 48), Image.BICUBIC)
        expected = torch.from_numpy(np.array(pil)[:, 8:56]).permute(2, 0, 1) / 255
        torch.testing.assert_close(ours, expected, atol=3 / 255, rtol=0)


def test_evaluation_view_leaves_pixels_of_the_right_size_alone():
    batch = images(height=32, width=32)
    assert torch.equal(EvaluationView(32, None)(batch), batch / 255)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "at least 1 pixel, not 0"),
        ({"normalize": "mnist"}, "'mnist'; choose from imagenet, cifar10, half"),
        ({"scale": (0.5, 0.2)}, r"low <= high.*\(0.5, 0.2\)"),
        ({"scale": (0.0, 1.0)}, "0 < low"),
        ({"jitter": -1}, "jitter must be between 0 and 2.5, not -1"),
        ({"grayscale": 1.5}, "probability, 0 to 1, not 1.5"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        SimCLRViews(**{"size": 32, **options})


def test_statistics_may_be_given_as_numbers():
    images = torch.rand(2, 3, 8, 8)
    named, given = EvaluationView(8, "half"), EvaluationView(8, ([0.5] * 3, [0.5] * 3))
    assert torch.equal(named(images), given(images))
    torch.testing.assert_close(given.denormalize(given(images)), images)
