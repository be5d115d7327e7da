import pytest
import torch
from kornia.color import rgb_to_lab

from sslkit.views import EvaluationView
from sslkit.views.augment import Augment
from sslkit.views.colorization import ColorizationView


def images(n=3, height=20, width=26):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, height, width), generator=generator, dtype=torch.uint8)


class Crops(EvaluationView):
    """The crops alone, from the same stream of random numbers."""

    random = True

    def make(self, images):
        return Augment(self.size, scale=(0.5, 1.0))(images)


def test_grey_has_the_crops_lightness_and_targets_its_mean_colours():
    (grey,), ab = ColorizationView(16, normalize=None).manual_seed(5)(images())
    crops = Crops(16, None).manual_seed(5)(images())
    lab = rgb_to_lab(crops)
    assert torch.equal(grey[:, 0], grey[:, 2])
    torch.testing.assert_close(rgb_to_lab(grey)[:, 0], lab[:, 0], atol=2e-3, rtol=0)
    for n in range(3):
        for y in range(4):
            for x in range(4):
                patch = lab[n, 1:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].double()
                expected = patch.flatten(1).sum(1) / 16
                torch.testing.assert_close(ab[n, :, y, x].double(), expected, atol=1e-4, rtol=0)


def test_colour_is_not_to_be_seen():
    """Two images of one lightness look the same, and differ in their targets."""
    coloured = images() / 255
    grey = EvaluationView(20, None, grayscale=True)(coloured)
    coloured = coloured[..., 3:23]
    seen = [ColorizationView(20, normalize="half").manual_seed(1)(x) for x in (coloured, grey)]
    whole = [ColorizationView(20, scale=(1.0, 1.0)).manual_seed(1)(x) for x in (coloured, grey)]
    torch.testing.assert_close(whole[0].views, whole[1].views, atol=1e-3, rtol=0)
    assert whole[0].targets.abs().max() > 5
    assert all(made.targets.isfinite().all() for made in seen)
    assert seen[1].targets.abs().max() < 0.02


def test_normalised_as_the_view_says_with_targets_as_they_were():
    plain, normal = (ColorizationView(16, normalize=n).manual_seed(0) for n in (None, "cifar10"))
    a, b = plain(images()), normal(images())
    torch.testing.assert_close(b.views[0], normal.normalized(a.views[0]))
    assert torch.equal(a.targets, b.targets)


@pytest.mark.parametrize("stride", [1, 2, 16])
def test_targets_are_as_large_as_the_stride_says(stride):
    made = ColorizationView(16, stride=stride)(images(n=1)[:, :1])
    assert made.targets.shape == (1, 2, 16 // stride, 16 // stride)
    assert made.targets.abs().max() < 0.02  # one channel is grey


def test_captions_are_the_crops():
    view = ColorizationView(16, scale=(1.0, 1.0))
    view(images())
    (texts,) = view.captions()
    assert len(texts) == 3
    assert all("x" in text for text in texts)


@pytest.mark.parametrize("stride", [0, 3, 32, 2.0])
def test_bad_stride(stride):
    with pytest.raises(ValueError, match=f"stride must divide size 16, not {stride}"):
        ColorizationView(16, stride=stride)


def test_the_evaluation_view_shows_the_same_lightness():
    whole = EvaluationView(16, None)(images())
    grey = EvaluationView(16, None, grayscale=True)(images())
    torch.testing.assert_close(rgb_to_lab(grey)[:, 0], rgb_to_lab(whole)[:, 0], atol=2e-3, rtol=0)
    assert torch.equal(grey[:, 0], grey[:, 1])
    normal = EvaluationView(16, "half", grayscale=True)
    torch.testing.assert_close(normal(images()), (grey - 0.5) / 0.5)
