import numpy as np
import pytest
import torch
from PIL import ImageColor

from sslkit.dashboard import neighbour_sheet, views_sheet
from sslkit.dashboard.sheets import AGREES, DIFFERS, UNKNOWN


def colours(sheet):
    return {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in sheet.getcolors(1 << 24)}


def flat(*values, size=32, channels=3):
    """Images of one grey each, (N, C, size, size)."""
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(
        -1, channels, size, size
    )


def block(sheet, column, row, side=96):
    """The pixels of one picture of a one-block sheet, whose titles take 32 pixels."""
    x, y = 8 + column * (side + 8), 32 + row * (side + 8)
    return np.asarray(sheet)[y : y + side, x : x + side]


def test_every_pixel_of_a_small_image_is_a_crisp_square():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    sheet = views_sheet(images, (images.float() / 255, 1 - images.float() / 255))
    for row in range(2):
        expected = images[row].permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1)
        assert np.array_equal(block(sheet, 0, row), expected)
        assert np.array_equal(block(sheet, 1, row), expected)
        assert np.array_equal(block(sheet, 2, row), 255 - expected)


def test_eight_rows_at_most_in_two_blocks():
    images = flat(*range(100, 120))
    views = (images / 255.0,)
    sheet, one = views_sheet(images, views), views_sheet(images[:1], (views[0][:1],))
    assert {f"#{g:02x}{g:02x}{g:02x}" for g in range(100, 108)} <= colours(sheet)
    assert "#6c6c6c" not in colours(sheet)  # 108, the ninth
    assert sheet.height == one.height + 3 * 104
    many = views_sheet(images[:8], tuple(views[0][:8] for _ in range(8)))
    assert many.height == one.height + 7 * 104
    assert many.width < 1200


def test_grey_odd_sizes_and_values_out_of_range():
    images = flat(40, 80, channels=1, size=28)
    views = (torch.full((2, 1, 14, 20), 1.7), torch.full((2, 3, 300, 200), torch.nan))
    assert {"#282828", "#505050", "#ffffff", "#000000"} <= colours(views_sheet(images, views))


def test_frames_say_whether_labels_agree():
    images, near = flat(0, 0), flat(0).expand(2, 3, 32, 32)[None].expand(2, -1, -1, -1, -1)
    both = torch.tensor([[0, 0, 0], [1, 1, 1]])
    assert AGREES in colours(neighbour_sheet(images, near, both))
    assert DIFFERS not in colours(neighbour_sheet(images, near, both))
    one_each = neighbour_sheet(images[:1], near[:1], torch.tensor([[0, 0, 1]]))
    pixels = dict((tuple(rgb), n) for n, rgb in one_each.getcolors(1 << 24))
    whole, broken = (pixels[ImageColor.getrgb(colour)] for colour in (AGREES, DIFFERS))
    assert whole == 104**2 - 96**2
    assert 0.5 * whole < broken < 0.8 * whole
    mixed = colours(neighbour_sheet(images, near, torch.tensor([[0, 1, -1], [-1, 1, 1]])))
    assert {DIFFERS, UNKNOWN} <= mixed
    assert AGREES not in mixed
    plain = colours(neighbour_sheet(images, near))
    assert UNKNOWN in plain
    assert not {AGREES, DIFFERS} & plain


def test_names_and_scores_are_drawn_and_long_names_are_cut():
    images, near = flat(0), flat(0)[None]
    labels = torch.tensor([[0, 0]])
    named = neighbour_sheet(images, near, labels, ["a" * 200], torch.tensor([[0.5]]))
    plain = neighbour_sheet(images, near, labels, ["b"], torch.tensor([[-0.5]]))
    assert named.size == plain.size
    assert named.tobytes() != plain.tobytes()
    assert neighbour_sheet(images, near, labels, []).size == plain.size


def test_bad_shapes():
    images = flat(0, 0)
    with pytest.raises(ValueError, match=r"one batch size above 0, not \[2, 1\]"):
        views_sheet(images, (torch.zeros(1, 3, 8, 8),))
    with pytest.raises(ValueError, match=r"above 0, not \[0\]"):
        views_sheet(images[:0], ())
    with pytest.raises(ValueError, match=r"1 or 3, H, W\), not \(2, 2, 8, 8\)"):
        views_sheet(torch.zeros(2, 2, 8, 8, dtype=torch.uint8), ())
    with pytest.raises(ValueError, match=r"with Q 2, not \(2, 3, 32, 32\)"):
        neighbour_sheet(images, images)
    with pytest.raises(ValueError, match=r"labels must be \(2, 2\), not \(2,\)"):
        neighbour_sheet(images, images[:, None], torch.zeros(2))
    with pytest.raises(ValueError, match=r"scores must be \(2, 1\), not \(2, 3\)"):
        neighbour_sheet(images, images[:, None], scores=torch.zeros(2, 3))
