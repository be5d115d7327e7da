import io
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from sslkit.dashboard.embedding_picture import _distances, _map, embedding_picture
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
    _map(ax, z, labels, torch.arange(6), [f"class {i}" for i in range(8)])
    assert texts(ax) == [f"class {i}" for i in range(6)]
    points = z[labels < 6].double().numpy()
    points = points - points.mean(0)
    values, directions = np.linalg.eigh(points.T @ points)
    expected = points @ directions[:, ::-1][:, :2]
    drawn = np.concatenate([c.get_offsets() for c in ax.collections])
    np.testing.assert_allclose(np.abs(drawn), np.abs(expected), atol=1e-5)
    share = 100 * values[-2:].sum() / values.sum()
    said = f"6 of the largest classes: {share:.0f} % of their spread is seen"
    assert ax.get_title(loc="left") == said


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
