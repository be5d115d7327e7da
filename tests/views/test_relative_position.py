import pytest
import torch

from sslkit.views import EvaluationView
from sslkit.views.relative_position import (
    NEIGHBOURS,
    RelativePositionView,
    drop_colors,
    project,
)

# Row and column steps from the middle patch, in the order of the targets, as in the paper's fig. 2.
STEPS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def coordinates(n, height, width):
    """Images that tell, pixel by pixel, their number, row and column."""
    number = torch.arange(n).view(n, 1, 1).expand(n, height, width)
    row = torch.arange(height).view(1, height, 1).expand(n, height, width)
    column = torch.arange(width).view(1, 1, width).expand(n, height, width)
    return torch.stack((number, row, column), 1).to(torch.uint8)


def view(patch=4, gap=3, jitter=1, pairs=8, **options):
    options = {"color": "none", "normalize": None, **options}
    return RelativePositionView(
        16, patch=patch, gap=gap, jitter=jitter, pairs=pairs, **options
    ).manual_seed(0)


def made(view, images):
    """The two patches in steps of 255, and the targets."""
    (first, second), targets = view(images)
    return (first * 255).round().long(), (second * 255).round().long(), targets


@pytest.mark.parametrize(("patch", "gap", "jitter"), [(4, 3, 1), (4, 0, 0), (1, 2, 2), (5, 1, 3)])
def test_pixels_lie_where_the_target_says(patch, gap, jitter):
    side = 3 * patch + 2 * gap + 2 * jitter
    images = coordinates(40, side + 3, side + 6)
    first, second, targets = made(view(patch, gap, jitter, pairs=5), images)
    grid = torch.arange(patch)
    shifts, places = set(), set()
    for i, target in enumerate(targets.tolist()):
        for patches in (first, second):  # whole squares of image i
            number, rows, columns = patches[i]
            assert (number == i % 40).all()
            assert (rows == rows[0, 0] + grid[:, None]).all()
            assert (columns == columns[0, 0] + grid).all()
        step = (second[i, 1:, 0, 0] - first[i, 1:, 0, 0]).tolist()
        nominal = [s * (patch + gap) for s in STEPS[target]]
        moved = tuple(a - b for a, b in zip(step, nominal, strict=True))
        assert max(map(abs, moved)) <= 2 * jitter
        shifts.add(moved)
        places.add(tuple(first[i, 1:, 0, 0].tolist()))
    assert (len(shifts) > 1) == (jitter > 0)
    assert any(down != right for down, right in shifts) == (jitter > 0)
    top, left = (sorted(axis) for axis in zip(*places, strict=True))
    room = patch + gap  # of the middle patch from the border: never less, jitter aside
    assert (top[0], top[-1]) == (room, room + 2 * jitter + 3)
    assert (left[0], left[-1]) == (room, room + 2 * jitter + 6)


def test_pairs_of_an_image_are_different_neighbours_drawn_evenly():
    _, _, targets = made(view(pairs=3), coordinates(250, 20, 20))
    assert all(len(set(row)) == 3 for row in targets.view(3, 250).T.tolist())
    # 750 draws of 8: 94 each; sigma 9.
    assert (targets.bincount(minlength=8) - 94).abs().max() < 36
    _, _, targets = made(view(pairs=8), coordinates(5, 20, 20))
    assert (targets.view(8, 5).sort(0).values == torch.arange(8)[:, None]).all()


def test_pairs_of_an_image_have_middle_patches_of_their_own():
    first, _, _ = made(view(pairs=8, jitter=0), coordinates(50, 30, 30))
    places = first[:, 1:, 0, 0].view(8, 50, 2)
    assert min(len(places[:, i].unique(dim=0)) for i in range(50)) > 4


def test_the_least_images_are_of_three_patches_two_gaps_and_the_jitter_on_both_sides():
    least = 3 * 4 + 2 * 3 + 2 * 1
    made(view(), coordinates(2, least, least))
    for size in ((least - 1, least + 9), (least + 9, least - 1)):
        with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} .*at least 20 x 20"):
            view()(coordinates(2, *size))


def test_projection_is_the_papers_matrix_on_every_pixel_before_the_deviation_is_divided_out():
    images = torch.rand(3, 3, 20, 20)
    plain, _ = view().manual_seed(6)(images)
    projected, _ = view(color="projection", normalize="cifar10").manual_seed(6)(images)
    a = torch.tensor([[-1.0, 2.0, -1.0]], dtype=torch.float64)
    matrix = torch.eye(3, dtype=torch.float64) - a.T @ a / (a @ a.T)
    mean, std = torch.tensor(view(normalize="cifar10").statistics, dtype=torch.float64)
    for before, after in zip(plain, projected, strict=True):
        pixels = before.double().permute(0, 2, 3, 1)
        expected = ((pixels - mean) @ matrix.T) / std
        torch.testing.assert_close(after.double().permute(0, 2, 3, 1), expected, atol=1e-5, rtol=0)


def test_projection_turns_fringes_of_green_into_grey():
    images = torch.rand(2, 1, 6, 6).repeat(1, 3, 1, 1)
    images[:, 1] += torch.randn(2, 6, 6)  # green, off by anything
    out = project(images, torch.full((3, 1, 1), 0.5))
    torch.testing.assert_close(out[:, 0], out[:, 1])
    torch.testing.assert_close(out[:, 2], out[:, 1])
    torch.testing.assert_close(project(out, torch.full((3, 1, 1), 0.5)), out)


def test_dropping_leaves_a_channel_of_each_patch_and_noise_of_a_hundredth():
    images = torch.rand(200, 3, 20, 20)
    plain, _ = view(pairs=2).manual_seed(6)(images)
    # The colours are drawn after the places.
    dropped, _ = view(pairs=2, color="drop", normalize="cifar10").manual_seed(6)(images)
    same = []
    for before, after in zip(plain, dropped, strict=True):
        before = view(normalize="cifar10").normalized(before)
        kept = (before - after).abs().amax((2, 3)) < 1e-5
        assert (kept.sum(1) == 1).all()
        same.append(kept.byte().argmax(1))
        std = torch.tensor(view(normalize="cifar10").statistics[1])
        signal = (before * std[:, None, None])[kept].std((1, 2), correction=0)
        noise = (after * std[:, None, None])[~kept].view(400, 2, 16) / signal[:, None, None]
        assert noise.std().item() == pytest.approx(0.01, rel=0.03)
        assert abs(noise.mean().item()) < 3e-4
    # Patch by patch, one channel in three: 133 of 400 pairs agree; sigma 9.
    assert abs((same[0] == same[1]).sum().item() - 133) < 29
    assert (torch.cat(same).bincount() - 267).abs().max() < 40


def test_dropping_on_a_flat_patch_and_without_normalisation():
    flat = torch.full((4, 3, 5, 5), 0.2)
    out = drop_colors(flat, torch.full((3, 1, 1), 0.5))
    assert sorted(out[0, :, 0, 0].tolist()) == pytest.approx([0.2, 0.5, 0.5])
    (first, _), _ = view(color="drop")(torch.full((4, 1, 20, 20), 51, dtype=torch.uint8))
    assert sorted(first[0, :, 0, 0].tolist()) == pytest.approx([0.2, 0.5, 0.5])


def test_the_same_seed_draws_the_same_and_captions_name_the_neighbours():
    images = torch.rand(3, 3, 20, 20)
    once, again = view(color="drop"), view(color="drop")
    (first, second), targets = once(images)
    (first_again, second_again), targets_again = again(images)
    assert torch.equal(first, first_again)
    assert torch.equal(second, second_again)
    assert torch.equal(targets, targets_again)
    middle, names = once.captions()
    assert middle == ["middle"] * 24
    assert [list(NEIGHBOURS).index(name) for name in names] == targets.tolist()
    assert not torch.equal(once(images).views[0], first)


def test_size_is_that_of_evaluation():
    assert EvaluationView(view().size, None)(torch.rand(1, 3, 20, 20)).shape[-1] == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "patch must be a whole number of 1 or more, not 0"),
        ({"gap": -1}, "gap must be a whole number of 0 or more, not -1"),
        ({"jitter": 0.5}, "jitter must be a whole number of 0 or more, not 0.5"),
        ({"pairs": 9}, "pairs must be 1 to 8, not 9"),
        ({"color": "grey"}, "color must be one of projection, drop, none, not 'grey'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        view(**options)
