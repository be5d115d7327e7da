import numpy as np
import pytest
import torch

from sslkit.views import RotationView


def test_all_four_turns_of_every_image_are_numpys_in_one_batch():
    images = torch.rand(3, 3, 20, 20)
    (turned,), targets = RotationView(20, scale=(0.5, 1.0), normalize=None)(images)
    upright = turned[:3].numpy()
    for k in range(4):
        expected = np.rot90(upright, k, (2, 3))
        np.testing.assert_array_equal(turned[3 * k : 3 * k + 3].numpy(), expected)
    assert targets.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_the_upright_turn_is_a_crop_of_the_image():
    image = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4) / 16
    (turned,), _ = RotationView(4, scale=(1.0, 1.0), normalize=None).manual_seed(1)(image)
    whole = [image, image.flip(3)]  # a crop of all of it, mirrored or not
    assert any(torch.allclose(turned[:1], x, atol=1e-5) for x in whole)


def test_normalised_as_the_view_says():
    images = torch.rand(2, 3, 12, 12)
    plain, normal = (RotationView(12, normalize=n).manual_seed(0) for n in (None, "cifar10"))
    torch.testing.assert_close(normal(images).views[0], normal.normalized(plain(images).views[0]))


def test_bad_scale():
    with pytest.raises(ValueError, match="scale must be"):
        RotationView(32, scale=(0.5, 2.0))


def test_captions_say_the_turn():
    view = RotationView(8)
    view(torch.rand(2, 3, 12, 12))
    (captions,) = view.captions()
    assert [text.split("\n")[0] for text in captions] == [
        *["0 degrees"] * 2,
        *["90 degrees"] * 2,
        *["180 degrees"] * 2,
        *["270 degrees"] * 2,
    ]
