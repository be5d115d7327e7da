import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from sslkit.dashboard import PictureSheets, neighbour_sheet, views_sheet
from sslkit.dashboard.picture_sheets import sample, sheet_of
from sslkit.dashboard.sheets import AGREES, DIFFERS, UNKNOWN, _short, _wrapped
from sslkit.data import ArrayDataset
from sslkit.views import SupervisedView, Targeted, View
from sslkit.views.base import unit


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


def ink(sheet, x, y, width, height):
    """Whether a part of a sheet holds anything but paper and the frames of pictures."""
    part = np.asarray(sheet)[y : y + height, x : x + width]
    plain = [(part == ImageColor.getrgb(colour)).all(-1) for colour in ("#ffffff", UNKNOWN)]
    return bool((~np.any(plain, axis=0)).any())


def test_titles_stand_over_their_columns():
    images = flat(40, 80)
    views = (images / 255, images[:, :1].float() / 255)
    named = views_sheet(images / 255, views, titles=("a", "", "original"))
    plain = views_sheet(images, views)
    assert [ink(named, 8 + column * 104, 8, 96, 20) for column in range(3)] == [True, False, True]
    assert np.array_equal(block(named, 0, 1), block(plain, 0, 1))
    with pytest.raises(ValueError, match="3 columns cannot have 2 titles"):
        views_sheet(images, views, titles=("grey", "true"))


def test_captions_stand_under_their_own_views():
    images = flat(40, 80)
    views = (images / 255, images / 255)
    sheet = views_sheet(images, views, captions=(["a\nb", ""], ["", "c"]))
    plain = views_sheet(images, views)
    assert sheet.height == plain.height + 15 * (2 + 1)
    for row, y in ((0, 32 + 98), (1, 32 + 96 + 30 + 8 + 98)):
        under = [ink(sheet, 8 + column * 104, y, 96, 13) for column in range(3)]
        assert under == [False, row == 0, row == 1]
    assert ink(sheet, 8 + 104, 32 + 98 + 15, 96, 13)  # the second line
    assert np.array_equal(block(sheet, 1, 0), block(plain, 1, 0))
    assert views_sheet(images, views, captions=()).tobytes() == plain.tobytes()


def test_no_text_is_cut_off_or_runs_into_the_next():
    images, words = (
        flat(40),
        ["mirrored brightness 1.29 contrast 0.71", "x" * 80, "10 x 10 at 20, 0"],
    )
    views = (images / 255,) * 2
    first = views_sheet(images, views, captions=(["\n".join(words)], [""]))
    column = first.width - views_sheet(images, views).width  # so much wider than its picture
    assert 0 < column <= 130 + 4 - 96
    at = 8 + 104 + 96 + column  # of the gap between the views
    assert not ink(first, at, 32, 8, first.height - 32)
    for last in (["a" * 18], ["1\n2\n3"]):
        sheet = views_sheet(images, views, captions=([""], last))
        assert not ink(sheet, sheet.width - 8, 0, 8, sheet.height)
        assert not ink(sheet, 0, sheet.height - 8, sheet.width, 8)
    assert _wrapped(words[0], 130) == ["mirrored brightness", "1.29 contrast 0.71"]
    assert _wrapped("a\n\nb", 130) == ["a", "", "b"]


class Rotated(View):
    """The four rotations of each image in one batch, turn by turn."""

    def make(self, images):
        images = unit(images)
        turned = torch.cat([images.rot90(turns, (2, 3)) for turns in range(4)])
        targets = torch.arange(4).repeat_interleave(len(images))
        return Targeted((self.normalized(turned),), targets)


class Jigsaw(View):
    """Nine tiles an image, (N, 9, 3, h, w), in the order of their permutation."""

    order = (8, 7, 6, 5, 4, 3, 2, 1, 0)

    def make(self, images):
        tiles = [row.chunk(3, 3) for row in unit(images).chunk(3, 2)]
        tiles = torch.stack(list(itertools.chain(*tiles)), 1)[:, list(self.order)]
        made = self.normalized(tiles.flatten(0, 1)).view_as(tiles)
        return Targeted((made,), torch.arange(len(images)))


def test_a_batch_of_copies_is_so_many_views_an_image():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)
    view = Rotated(32)
    sheet = sheet_of(view, images, view(images))
    for row, turns in itertools.product(range(3), range(4)):
        expected = images[row].rot90(turns, (1, 2)).permute(1, 2, 0).numpy().repeat(3, 0)
        x, y = 8 + (1 + turns) * 104, 32 + row * (96 + 15 + 8)
        there = np.asarray(sheet)[y : y + 96, x : x + 96].astype(int)
        assert np.abs(there - expected.repeat(3, 1)).max() <= 1  # normalised and back
        assert ink(sheet, x, y + 98, 96, 13)
        assert not ink(sheet, 8, y + 98, 96, 13)
    one = views_sheet(images, (images.repeat(4, 1, 1, 1) / 255,), captions=[["a", "", ""]])
    under = [ink(one, 8 + column * 104, 32 + 98, 96, 13) for column in range(5)]
    assert under == [False, True, True, True, True]  # one caption an image is that of all copies
    texts = ["a" * (i == 2 * 3 + 1) for i in range(12)]  # view 2 of image 1
    one = views_sheet(images, (images.repeat(4, 1, 1, 1) / 255,), captions=[texts])
    under = [ink(one, 8 + column * 104, 32 + 104 + 98, 96, 13) for column in range(5)]
    assert under == [False, False, False, True, False]


def test_the_callback_draws_what_the_command_draws_or_says_why_not(tmp_path, caplog):
    dataset = ArrayDataset(flat(*range(20)))
    trainer = SimpleNamespace(
        is_global_zero=True,
        fast_dev_run=False,
        datamodule=SimpleNamespace(dataset=dataset),
        loggers=[],
    )
    callback, images = PictureSheets(tmp_path, images=5), dataset.images[sample(20, 5)]
    view = SupervisedView(32).manual_seed(3)
    callback.on_fit_start(trainer, SimpleNamespace(view=view, device="cpu"))
    saved = callback.path("views").read_bytes()
    expected = sheet_of(view, images, view.manual_seed(3)(images))
    assert np.array_equal(np.asarray(Image.open(callback.path("views"))), np.asarray(expected))
    assert ink(expected, 8 + 104, 32 + 98, 96, 13)  # the captions
    view.make = lambda images: torch.zeros(len(images), 7)
    callback.on_fit_start(trainer, SimpleNamespace(view=view, device="cpu"))
    assert "no picture of the views: pictures must be" in caplog.text
    assert callback.path("views").read_bytes() == saved


def test_tiles_are_a_grid_with_gaps():
    images = torch.arange(9.0).view(1, 1, 3, 3) * 25 + 20
    images = images.repeat_interleave(10, 2).repeat_interleave(10, 3).byte().expand(2, 3, -1, -1)
    view = Jigsaw(30)
    sheet = sheet_of(view, images, view(images))
    pixels = np.asarray(sheet).astype(int)
    for i, tile in enumerate(view.order):
        x, y = 8 + 90 + 8 + i % 3 * 32, 32 + i // 3 * 32
        assert np.abs(pixels[y : y + 30, x : x + 30] - (20 + 25 * tile)).max() <= 1
        assert i % 3 == 2 or (pixels[y : y + 30, x + 30 : x + 32] == 255).all()
        assert i // 3 == 2 or (pixels[y + 30 : y + 32, x : x + 30] == 255).all()
    assert ink(sheet, 8 + 98, 32 + 96, 94, 13)  # the target
    five = views_sheet(images, (torch.zeros(2, 5, 1, 10, 20),))
    assert five.width == 3 * 8 + 90 + 3 * 40 + 4  # 2 rows of 3, twice as large


def test_views_stand_in_proportion_until_they_are_too_small():
    images = flat(10, size=256)
    views = [torch.full((1, 3, size, size), grey / 255) for size, grey in ((224, 20), (96, 30))]
    tiny = torch.full((1, 3, 16, 16), 40 / 255)
    sheet = np.asarray(views_sheet(images, (*views, tiny)))
    sides = [int(((sheet == grey).all(-1)).any(0).sum()) for grey in (10, 20, 30, 40)]
    assert sides == [160, 160, round(96 * 160 / 224), 48]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.tensor(2), "2"),
        (torch.tensor(True), "1"),
        (torch.tensor(0.254), "0.25"),
        (torch.tensor([3, 1, 2]), "3 1 2"),
        (torch.arange(12), "0 1 2 3 4 5 6 7 8 …"),
        (torch.zeros(3, 8, 8), "3 x 8 x 8"),
    ],
)
def test_targets_in_short(target, said):
    assert _short(target) == said


def test_targets_stand_under_the_last_batch_that_they_fit():
    images = flat(40, 80)
    two, four = images / 255, images.repeat(2, 1, 1, 1) / 255

    def under(views, targets):
        sheet = views_sheet(images, views, targets=torch.zeros(targets))
        return [ink(sheet, x, 32 + 98, 96, 13) for x in range(8, sheet.width - 8, 104)]

    assert under((two, two), 2) == [False, False, True]
    assert under((four, two), 4) == [False, True, True, False]
    assert under((four,), 2) == [True, False, False]


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
    twins = [neighbour_sheet(images, near, labels, [f"{'a' * 200}{end}"]) for end in "bc"]
    assert twins[0].tobytes() != twins[1].tobytes()


def test_bad_shapes():
    images = flat(0, 0)
    with pytest.raises(ValueError, match=r"multiple of the images in number, .* not \[2, 1\]"):
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
    with pytest.raises(ValueError, match=r"or \(N, tiles, 1 or 3, H, W\), not \(2, 7, 5\)"):
        views_sheet(images, (torch.zeros(2, 7, 5),))
    with pytest.raises(ValueError, match=r"not \(2, 0, 3, 8, 8\)"):
        views_sheet(images, (torch.zeros(2, 0, 3, 8, 8),))
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        views_sheet(images, (), rows=0)
    views = (torch.zeros(4, 3, 8, 8),)
    with pytest.raises(ValueError, match="a list for each of 1 batches, not 2"):
        views_sheet(images, views, captions=([], []))
    with pytest.raises(ValueError, match="4 views of 2 images cannot have 3 captions"):
        views_sheet(images, views, captions=(["", "", ""],))
    with pytest.raises(ValueError, match="targets must be 2 or 4, not 3"):
        views_sheet(images, views, targets=torch.zeros(3))


def test_views_of_one_number_stand_together():
    images = torch.zeros(2, 3, 32, 32)
    first, second = torch.rand(2, 6, 3, 32, 32)  # of pairs 0, 1 and 2 of both images
    together = views_sheet(images, (first, second))
    by_pair = [batch[start : start + 2] for start in (0, 2, 4) for batch in (first, second)]
    assert together.tobytes() == views_sheet(images, by_pair).tobytes()
    texts = [[str(i) for i in range(6)], list("abcdef")]
    named = views_sheet(images, (first, second), captions=texts)
    by_pair_texts = [text[start : start + 2] for start in (0, 2, 4) for text in texts]
    assert named.tobytes() == views_sheet(images, by_pair, captions=by_pair_texts).tobytes()
