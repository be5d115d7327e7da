from itertools import combinations, permutations
from math import comb

import pytest
import torch

from sslkit.views.functional import LUMA
from sslkit.views.jigsaw import JigsawView, permutation_set, standardized


def coordinates(n, height, width):
    """Images that tell, pixel by pixel, their number, row and column."""
    number = torch.arange(n).view(n, 1, 1).expand(n, height, width)
    row = torch.arange(height).view(1, height, 1).expand(n, height, width)
    column = torch.arange(width).view(1, 1, width).expand(n, height, width)
    return torch.stack((number, row, column), 1).to(torch.uint8)


def view(tile=4, cell=6, **options):
    options = {"channel_jitter": 0, "grayscale": 0.0, "normalize_tiles": False, **options}
    options = {"permutations": 30, "normalize": None, **options}
    return JigsawView(16, tile=tile, cell=cell, **options).manual_seed(0)


@pytest.mark.parametrize(("tile", "cell"), [(4, 6), (4, 4), (1, 3)])
def test_at_each_place_stands_a_tile_of_the_cell_that_the_permutation_names(tile, cell):
    n, grid = 60, torch.arange(tile)
    images = coordinates(n, 3 * cell + 2, 3 * cell + 5)
    (tiles,), targets = (made := view(tile, cell))(images)
    tiles = (tiles * 255).round().long()
    corners, offsets = set(), set()
    for i, target in enumerate(targets.tolist()):
        order = made.permutations[target].tolist()
        assert (tiles[i, :, 0] == i).all()
        assert (tiles[i, :, 1] == tiles[i, :, 1, :1, :1] + grid[:, None]).all()
        assert (tiles[i, :, 2] == tiles[i, :, 2, :1, :1] + grid).all()
        # Where the cells would begin if each tile lay at its cell's first pixel.
        begins = [
            (tiles[i, place, 1:, 0, 0] - cell * torch.tensor(divmod(origin, 3))).tolist()
            for place, origin in enumerate(order)
        ]
        least = [min(axis) for axis in zip(*begins, strict=True)]
        moved = [(top - least[0], left - least[1]) for top, left in begins]
        assert max(map(max, moved)) <= cell - tile
        corners.add(tuple(least))
        offsets.update(moved)
    assert offsets == {(a, b) for a in range(cell - tile + 1) for b in range(cell - tile + 1)}
    assert {top for top, _ in corners} >= {0, 1, 2}
    assert {left for _, left in corners} >= {0, 1, 2, 3, 4, 5}


def test_targets_are_drawn_evenly():
    _, targets = view(permutations=4)(torch.zeros(400, 3, 18, 18))
    assert (targets.bincount(minlength=4) - 100).abs().max() < 35  # sigma 9


def test_tiles_are_normalised_each_channel_by_its_own_mean_and_deviation():
    images = torch.rand(3, 3, 20, 20)
    (plain,), _ = view().manual_seed(4)(images)
    (normal,), _ = view(normalize_tiles=True, normalize="cifar10").manual_seed(4)(images)
    for i in range(3):
        for j in range(9):
            for c in range(3):
                pixels = plain[i, j, c].double()
                expected = (pixels - pixels.mean()) / pixels.std(correction=0)
                torch.testing.assert_close(normal[i, j, c].double(), expected, atol=1e-4, rtol=0)


def test_flat_tiles_become_zero_and_faint_noise_stays_faint():
    assert (standardized(torch.full((1, 3, 4, 4), 0.3)).abs() < 1e-3).all()
    faint = standardized(0.3 + 1e-5 * torch.randn(1, 3, 8, 8))
    assert 0.001 < faint.std() < 0.1
    grey = torch.full((2, 1, 20, 20), 77, dtype=torch.uint8)
    assert (view(normalize_tiles=True)(grey).views[0].abs() < 1e-3).all()


def test_without_it_they_are_normalised_as_the_view_says():
    images = torch.rand(3, 3, 20, 20)
    (plain,), _ = view().manual_seed(4)(images)
    (normal,), _ = (made := view(normalize="cifar10")).manual_seed(4)(images)
    expected = torch.stack([made.normalized(tiles) for tiles in plain])
    torch.testing.assert_close(normal, expected)
    torch.testing.assert_close(made.denormalize(normal[0]), plain[0])


def test_standardised_tiles_are_pictures_about_middle_grey():
    made = view(normalize_tiles=True)
    shown = made.denormalize(made(torch.rand(3, 3, 20, 20)).views[0])
    assert shown.mean().item() == pytest.approx(0.5, abs=1e-4)
    assert shown.std().item() == pytest.approx(0.25, abs=1e-2)


def test_grey_images_are_wholly_grey_and_their_share_is_as_asked():
    images = torch.rand(300, 3, 20, 20)
    options = {"grayscale": 0.3, "channel_jitter": 2}
    (tiles,), _ = (made := view(**options))(images)
    grey = (tiles == tiles[:, :, :1]).flatten(1).all(1)
    assert abs(grey.sum().item() - 90) < 25  # sigma 8
    assert grey.tolist() == ["grey" in text for text in made.captions()[0]]
    partly = (tiles[~grey] == tiles[~grey][:, :, :1]).all(2).flatten(1).float().mean(1)
    assert partly.max() < 0.1
    # Grey is the luma of the pixels that lie there: channels are not moved.
    constant = torch.tensor([0.2, 0.6, 0.4])[None, :, None, None].expand(5, 3, 20, 20)
    (tiles,), _ = view(grayscale=1.0)(constant)
    luma = sum(w * x for w, x in zip(LUMA, (0.2, 0.6, 0.4), strict=True))
    torch.testing.assert_close(tiles, torch.full_like(tiles, luma))
    steps = coordinates(200, 18, 18)[:, 1:2].expand(-1, 3, -1, -1)
    (tiles,), _ = view(grayscale=1.0, channel_jitter=2)(steps)
    rows = tiles[..., 0] * 255
    torch.testing.assert_close(rows, rows.round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("jitter", [1, 2])
def test_channels_move_against_each_other_and_stay_in_the_cell(jitter):
    rows = coordinates(200, 18, 18)[:, 1:2].expand(-1, 3, -1, -1)
    (tiles,), targets = (made := view(channel_jitter=jitter))(rows)
    tops = (tiles[..., 0, 0] * 255).round().long()  # (N, 9, 3)
    cells = made.permutations[targets] // 3
    offset = tops - 6 * cells[..., None]
    assert (offset.min(), offset.max()) == (0, 2)
    apart = offset[..., 0] - offset[..., 1]
    assert set(apart.unique().tolist()) == {-2, -1, 0, 1, 2}
    assert abs(apart.float().mean().item()) < 0.1
    assert (apart != apart[:, :1]).any(1).float().mean() > 0.9  # tile by tile


def test_the_least_images_are_of_three_cells():
    view()(torch.rand(2, 3, 18, 18))
    for size in ((17, 30), (30, 17)):
        with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} .*at least 18 x 18"):
            view()(torch.rand(2, 3, *size))


def test_the_same_seed_draws_the_same():
    images = torch.rand(3, 3, 20, 20)
    options = {"grayscale": 0.5, "channel_jitter": 1}
    once, again = view(**options)(images), view(**options)(images)
    assert torch.equal(once.views[0], again.views[0])
    assert torch.equal(once.targets, again.targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile must be a whole number of 1 or more, not 0"),
        ({"tile": 7}, "a tile must fit into its cell of 6 pixels, not be 7"),
        ({"channel_jitter": 3}, "channel_jitter must be at most the 2 pixels that a cell has"),
        ({"channel_jitter": -1}, "channel_jitter must be a whole number of 0 or more, not -1"),
        ({"grayscale": 1.5}, "grayscale must be a probability, 0 to 1, not 1.5"),
        ({"permutations": 1}, "permutations must be 2 to 362880, not 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        view(**options)


def distance(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("n", "least"), [(100, 4), (1000, 2)])
def test_the_mean_distance_of_the_set_is_the_greatest_there_can_be(n, least):
    chosen = permutation_set(n)
    assert chosen.shape == (n, 9)
    assert (chosen.sort(1).values == torch.arange(9)).all()
    assert len(chosen.unique(dim=0)) == n
    pairs = comb(n, 2)
    apart = (chosen[:, None] != chosen).sum(2)[tuple(torch.triu_indices(n, n, 1))]
    # At a place the fewest pairs agree where each of 9 numbers stands in a ninth of the rows.
    more = n % 9
    agreeing = 9 * (more * comb(n // 9 + 1, 2) + (9 - more) * comb(n // 9, 2))
    assert apart.sum().item() == 9 * pairs - agreeing
    assert apart.float().mean().item() == pytest.approx({100: 8.08, 1000: 8.008}[n], abs=1e-4)
    assert apart.min().item() == least
    assert torch.equal(permutation_set(100), chosen[:100])


@pytest.mark.parametrize(("tiles", "n"), [(3, 6), (4, 24), (5, 40)])
def test_the_set_is_that_of_a_slow_greedy_search(tiles, n):
    every = list(permutations(range(tiles)))
    chosen = [every[0]]
    while len(chosen) < n:
        left = [p for p in every if p not in chosen]
        distances = {p: [distance(p, q) for q in chosen] for p in left}
        chosen.append(max(left, key=lambda p: (sum(distances[p]), min(distances[p]))))
    found = permutation_set(n, tiles)
    assert found.tolist() == [list(p) for p in chosen]
    assert all(distance(a, b) > 1 for a, b in combinations(found.tolist(), 2))
