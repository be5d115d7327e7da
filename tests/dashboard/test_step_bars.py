import io
import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from sslkit.callbacks.profile import PARTS
from sslkit.dashboard import step_bars

STEPS = {
    "16 px": {"views": 1.0, "network forward": 2.0, "loss": 0.2, "network backward": 6.8},
    "32 px": {"views": 9.0, "network forward": 8.0, "network backward": 16.0, "loop": 3.0},
}


@pytest.fixture
def draw(monkeypatch):
    """What draws, and returns the axes and the legend's names beside the picture."""
    figures, save = [], Figure.savefig

    def keep(figure, *args, **options):
        figures.append(figure)
        return save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)

    def draw(steps, title="a step"):
        picture = Image.open(io.BytesIO(step_bars(steps, title)))
        (figure,) = figures
        (ax,), (legend,) = figure.axes, figure.legends
        return picture, ax, [text.get_text() for text in legend.texts]

    return draw


def bars(ax):
    """For each part, where its bars begin and how wide they are, from top to bottom."""
    return {
        drawn.get_label(): [(bar.get_x(), bar.get_width()) for bar in drawn]
        for drawn in ax.containers
    }


def test_shares_by_hand(draw):
    picture, ax, legend = draw(STEPS, "simclr: 8 images a step")
    assert picture.format == "PNG"
    assert legend == ["views", "network forward", "loss", "network backward", "loop"]
    expected = {  # of 10 and of 36 milliseconds
        "views": [(0, 10), (0, 25)],
        "network forward": [(10, 20), (25, 800 / 36)],
        "loss": [(30, 2), (1700 / 36, 0)],
        "network backward": [(32, 68), (1700 / 36, 1600 / 36)],
        "loop": [(100, 0), (3300 / 36, 300 / 36)],
    }
    found = bars(ax)
    assert list(found) == list(expected)
    for part, places in expected.items():
        assert found[part] == [pytest.approx(place, abs=1e-9) for place in places]
    texts = [text.get_text() for text in ax.texts if text.get_text()]
    assert texts == ["10 %", "25 %", "20 %", "22 %", "68 %", "44 %", "8 %"]  # the rest is too thin
    assert [label.get_text() for label in ax.get_yticklabels()] == ["16 px", "32 px"]
    assert ax.yaxis_inverted()  # the first on top
    assert ax.get_title(loc="left") == "simclr: 8 images a step"
    assert ax.get_xlim() == (0, 100)


def test_all_parts_of_a_profile_differ_and_the_network_is_grey(draw):
    _, ax, legend = draw({"32 px": dict.fromkeys(PARTS, 1.0)})
    assert legend == list(PARTS)
    colours = {drawn.get_label(): to_hex(drawn[0].get_facecolor()) for drawn in ax.containers}
    assert len(set(colours.values())) == len(PARTS)
    for part, colour in colours.items():
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert (max(red, green, blue) - min(red, green, blue) < 16) == part.startswith("network")
    ends = [start + width for ((start, width),) in bars(ax).values()]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(100)


def test_a_picture_grows_with_its_bars_and_all_is_on_it(draw):
    picture, ax, _ = draw({f"{n} px": dict.fromkeys(PARTS, float(n)) for n in range(1, 9)})
    figure = ax.figure
    width, height = picture.size
    assert height > Image.open(io.BytesIO(step_bars(STEPS, "x"))).size[1]
    renderer = FigureCanvasAgg(figure).get_renderer()
    shown = [*ax.get_yticklabels(), ax.title, ax.xaxis.label, *figure.legends]
    for artist in shown:
        box = artist.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


@pytest.mark.parametrize(
    "steps",
    [
        {},
        {"32 px": {}},
        {"32 px": {"views": 0.0}},
        {"16 px": {"views": 1.0}, "32 px": {"views": 0.0}},
        {"32 px": {"views": math.nan}},
    ],
)
def test_bad_input(steps):
    with pytest.raises(ValueError, match=r"step_bars needs steps that took time, not \{"):
        step_bars(steps, "x")
