import pytest
import torch
from kornia.color import lab_to_rgb, rgb_to_lab

from sslkit.views.lab import annealed_mean, gamut_bins, lightness, rebalancing, soft_encode


def plane(*colours):
    """Colours as the pixels of one row, (1, C, 1, n)."""
    return torch.tensor(colours, dtype=torch.float32).T[None, :, None]


def random_ab(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 180 - 90


def test_lightness_is_that_of_the_colour_and_grey_stays():
    images = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    grey = lightness(images)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    torch.testing.assert_close(rgb_to_lab(grey)[:, 0], rgb_to_lab(images)[:, 0], atol=2e-3, rtol=0)
    assert rgb_to_lab(grey)[:, 1:].abs().max() < 0.02
    torch.testing.assert_close(lightness(grey), grey, atol=1e-5, rtol=0)
    ends = torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2)
    torch.testing.assert_close(lightness(ends), ends, atol=1e-5, rtol=0)


def test_lab_is_the_known_one():
    primaries = plane((1, 0, 0), (0, 1, 0), (0, 0, 1))
    known = plane((53.24, 80.09, 67.20), (87.73, -86.18, 83.18), (32.30, 79.19, -107.86))
    torch.testing.assert_close(rgb_to_lab(primaries), known, atol=0.05, rtol=0)


def test_bins_are_what_colours_round_to():
    bins = gamut_bins()
    assert bins.shape == (261, 2)
    rows = set(map(tuple, bins.tolist()))
    assert len(rows) == 261
    assert {(0, 0), (80, 70), (-90, 80), (80, -110)} <= rows  # grey, red, green, blue
    assert not {(-90, -90), (90, -110), (110, 0), (100, 100), (-90, 0)} & rows
    assert bins.tolist() == sorted(bins.tolist())
    colours = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(1))
    rounded = (rgb_to_lab(colours)[0, 1:] / 10).round().flatten(1).T * 10
    assert set(map(tuple, rounded.tolist())) <= rows


def test_every_bin_holds_a_colour_of_the_gamut():
    bins = gamut_bins()
    steps = torch.linspace(-4.99, 4.99, 17)
    light = torch.linspace(0.5, 99.5, 100)
    around = torch.cartesian_prod(light, steps, steps).T  # (3, 28900): L, a, b
    for middle in bins:
        lab = around + torch.cat([torch.zeros(1), middle])[:, None]
        rgb = lab_to_rgb(lab[None, :, None], clip=False)
        # half a level of 8-bit colours, for the bins that only a corner of the gamut reaches
        inside = ((rgb > -0.002) & (rgb < 1.002)).all(1)
        assert inside.any(), middle


@pytest.mark.slow
def test_bins_are_those_of_all_colours_of_8_bits():
    values, found = torch.arange(256) / 255, set()
    for red in values:
        rest = torch.cartesian_prod(values, values).T
        rgb = torch.cat([red.expand(1, rest.shape[1]), rest])[None, :, :, None]
        rounded = (rgb_to_lab(rgb)[0, 1:, :, 0] / 10).round().T.unique(dim=0) * 10
        found |= set(map(tuple, rounded.tolist()))
    assert found == set(map(tuple, gamut_bins().tolist()))


def test_soft_encoding_agrees_with_a_loop_in_float64(monkeypatch):
    monkeypatch.setattr("sslkit.views.lab.CHUNK", 7)  # pixels, of 24
    bins, ab = gamut_bins(), random_ab(2, 2, 3, 4)
    index, weights = soft_encode(ab, bins, neighbours=5, sigma=5.0)
    assert index.shape == weights.shape == (2, 5, 3, 4)
    assert weights.dtype == torch.float32
    for n, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        square = [
            sum((float(p) - float(q)) ** 2 for p, q in zip(ab[n, :, y, x], bin, strict=True))
            for bin in bins
        ]
        best = sorted(range(len(bins)), key=square.__getitem__)[:5]
        gauss = torch.tensor([-square[i] / 50 for i in best], dtype=torch.float64).exp()
        assert index[n, :, y, x].tolist() == best
        torch.testing.assert_close(
            weights[n, :, y, x].double(), gauss / gauss.sum(), rtol=1e-3, atol=1e-5
        )


def test_a_bins_own_colour_and_four_at_ten():
    index, weights = soft_encode(plane((20.0, -10.0)), gamut_bins())
    found = {tuple(gamut_bins()[i].tolist()) for i in index.flatten()}
    assert found == {(20, -10), (10, -10), (30, -10), (20, 0), (20, -20)}
    e = torch.tensor(-2.0).exp()  # a distance of 10 is two sigma
    expected = torch.stack([1 / (1 + 4 * e), *[e / (1 + 4 * e)] * 4])
    torch.testing.assert_close(weights.flatten(), expected)


def test_far_from_every_bin_is_still_a_distribution():
    index, weights = soft_encode(plane((3000.0, 0.0)), gamut_bins())
    assert weights.sum() == pytest.approx(1)
    assert gamut_bins()[index[0, 0, 0, 0], 0] == 100


def test_annealed_mean_from_the_mode_to_the_mean():
    bins = gamut_bins()
    logits = torch.randn(2, 261, 3, 2, generator=torch.Generator().manual_seed(0))
    mode = bins[logits.argmax(1)].movedim(-1, 1)
    torch.testing.assert_close(annealed_mean(logits, bins, temperature=1e-4), mode)
    mean = torch.einsum("nqhw,qc->nchw", logits.double().softmax(1), bins.double())
    torch.testing.assert_close(annealed_mean(logits, bins, temperature=1.0), mean.float())
    p = logits.double().softmax(1)[1, :, 2, 0] ** (1 / 0.38)  # as the paper writes it
    found = annealed_mean(logits, bins)[1, :, 2, 0]
    torch.testing.assert_close(found, (p / p.sum() @ bins.double()).float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(annealed_mean(logits, bins)[1, :, 2, 0], found)


@pytest.mark.parametrize("mix", [0.0, 0.5, 0.9])
def test_rebalancing_agrees_with_a_loop_in_float64(mix):
    bins = gamut_bins()[100:160].double()
    prior = torch.rand(60, generator=torch.Generator().manual_seed(0)) ** 8
    smoothed = torch.zeros(60, dtype=torch.float64)
    for i, middle in enumerate(bins):
        near = [((middle - other).square().sum() / -50).exp() for other in bins]
        smoothed[i] = sum(k * p for k, p in zip(near, prior.double(), strict=True)) / sum(near)
    smoothed /= smoothed.sum()
    expected = 1 / ((1 - mix) * smoothed + mix / 60)
    expected /= (smoothed * expected).sum()
    weights = rebalancing(prior, bins, mix=mix)
    torch.testing.assert_close(weights.double(), expected, rtol=1e-4, atol=1e-6)
    assert (smoothed * weights).sum().item() == pytest.approx(1, rel=1e-5)


def test_rebalancing_favours_the_rare_unless_there_is_none():
    bins = gamut_bins()
    torch.testing.assert_close(rebalancing(torch.ones(261), bins), torch.ones(261))
    prior = torch.zeros(261)
    prior[bins.tolist().index([0.0, 0.0])] = 40.0
    assert torch.equal(rebalancing(prior, bins, mix=1.0), torch.ones(261))
    weights = rebalancing(prior, bins)
    assert weights.argmin() == prior.argmax()
    assert weights[bins.norm(dim=1) > 80].min() == weights.max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bins: gamut_bins(2), "grid must be .* at least 4, not 2"),
        (lambda bins: soft_encode(torch.zeros(2, 3, 4, 4), bins), r"\(N, 2, h, w\), not \(2, 3"),
        (lambda bins: soft_encode(plane((0.0, 0.0)), bins, neighbours=0), "1 to 261, not 0"),
        (lambda bins: soft_encode(plane((0.0, 0.0)), bins, sigma=0), "sigma must be .* above 0"),
        (lambda bins: annealed_mean(torch.zeros(1, 261, 1, 1), bins, temperature=0), "temperature"),
        (lambda bins: rebalancing(torch.zeros(261), bins), "261 numbers .* sum of 0"),
        (lambda bins: rebalancing(torch.ones(9), bins), r"261 numbers .* \(9,\)"),
        (lambda bins: rebalancing(torch.ones(261), bins, mix=1.5), "between 0 and 1, not 1.5"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(gamut_bins())
