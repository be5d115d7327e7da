import io
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from sslkit.dashboard.embedding_picture import (
    _chosen,
    _distances,
    _drawn,
    _map,
    drawable,
    embedding_picture,
)
from sslkit.embeddings import unit


@pytest.fixture
def some():
    """60 unit vectors of 8 classes, of which the first have the most."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(8).repeat_interleave(torch.tensor([12, 11, 10, 9, 8, 7, 2, 1]))
    return unit(torch.randn(60, 5, generator=generator)), labels


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_distances_are_those_of_every_pair(some):
    z, labels = some
    ax = Figure().subplots()
    _distances(ax, z, labels)
    found = {True: [], False: []}
    for i in range(60):
        for j in range(i):
            found[bool(labels[i] == labels[j])].append(math.dist(z[i].tolist(), z[j].tolist()))
    within, between = (sum(values) / len(values) for values in (found[True], found[False]))
    assert texts(ax) == [f"one class: {within:.3f}", f"two classes: {between:.3f}"]
    expected, _ = np.histogram(found[True], 50, (0, max(found[True] + found[False])))
    np.testing.assert_allclose(ax.patches[0].get_data().values, expected / len(found[True]))
    assert sum(ax.patches[2].get_data().values) == pytest.approx(1)


def test_the_map_shows_the_largest_classes_on_their_principal_components(some):
    z, labels = some
    ax = Figure().subplots()
    _map(ax, z, labels, [f"class {i}" for i in range(8)])
    assert texts(ax) == [f"class {i}" for i in range(6)]
    points = z[labels < 6].double().numpy()
    points = points - points.mean(0)
    values, directions = np.linalg.eigh(points.T @ points)
    expected = points @ directions[:, ::-1][:, :2]
    drawn = np.concatenate([c.get_offsets() for c in ax.collections])
    np.testing.assert_allclose(np.abs(drawn), np.abs(expected), atol=1e-5)
    share = 100 * values[-2:].sum() / values.sum()
    assert ax.get_title(loc="left") == "6 of 8 classes, those of most images, ties by lot"
    said = f"first two principal components: {share:.0f} % of the variance"
    assert ax.get_xlabel() == said


def test_classes_of_as_many_images_are_drawn_by_lot():
    labels = torch.arange(40).repeat_interleave(5)
    labels = torch.cat([labels, torch.tensor([30, 35])])
    chosen = _chosen(labels)
    assert {30, 35} <= set(chosen.tolist())  # those with more are no matter of luck
    assert len(chosen) == 6
    assert not set(chosen.tolist()) <= {*range(6), 30, 35}
    assert chosen.tolist() == _chosen(labels[torch.randperm(202)]).tolist()
    assert _chosen(torch.tensor([7, 3, 7])).tolist() == [3, 7]
    ax = Figure().subplots()
    _map(ax, unit(torch.randn(3, 2)), torch.tensor([7, 3, 7]), None)
    assert ax.get_title(loc="left") == "All 2 classes"


def test_of_many_rows_every_class_or_whole_classes_are_drawn():
    def counts(labels):
        rows = _drawn(labels)
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert len(rows) <= 2000
        assert torch.equal(rows, _drawn(labels))
        return labels[rows].unique(return_counts=True)

    assert _drawn(torch.zeros(2000)).tolist() == list(range(2000))
    for labels in (torch.arange(10_000) // 1000, torch.arange(10_000) % 10):
        assert counts(labels)[1].tolist() == [200] * 10
    shown, each = counts(torch.arange(8134) // 83)  # 98 classes, as of Cars196
    assert each.tolist() == [20] * 98
    assert counts(torch.arange(30_000) // 100)[1].tolist() == [10] * 200
    shown, each = counts(torch.arange(20_000) // 5)
    assert each.tolist() == [5] * 400
    assert shown.tolist() != list(range(400))
    rows = _drawn(torch.arange(8134) // 83)
    assert len(set((rows % 83).tolist())) == 83  # and not the first 20 of a class


def test_of_single_images_alone_there_is_no_picture():
    labels = torch.arange(5000)
    assert not drawable(labels)
    assert drawable(labels // 2)
    with pytest.raises(ValueError, match="not 5000 images of 5000 class"):
        embedding_picture(torch.randn(5000, 2), labels)


@pytest.mark.parametrize("dim", [1, 2, 70])
def test_any_width_gives_a_picture(dim, some):
    _, labels = some
    torch.manual_seed(0)
    for features in (torch.randn(60, dim), torch.ones(60, dim), torch.zeros(60, dim)):
        picture = Image.open(io.BytesIO(embedding_picture(features, labels)))
        assert picture.size == (1200, 480)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_bad_input(labels):
    with pytest.raises(ValueError, match="2 classes or more, one of them with 2 images, not 3"):
        embedding_picture(torch.eye(3), torch.tensor(labels))
