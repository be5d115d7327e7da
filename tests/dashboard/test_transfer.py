import math
import re
from itertools import pairwise

import pytest
from matplotlib.colors import to_hex
from PIL import Image

from sslkit.dashboard.plots import COLOURS
from sslkit.dashboard.transfer import transfer_chart, transfer_figure
from sslkit.data import about
from sslkit.evaluation.entries import transfer_entries
from sslkit.evaluation.published import SIMCLR12

CUT = "200 of 20,000 steps, 2 x 2 of 7 x 8"


def result(target="runs/x", data="cifar10", *, absent=None, failed=None, differs=None, **scores):
    metric = about(data).metric
    plain = {"target": target, "data": data, "metric": metric, "differs": differs}
    of = {name: {"metric": metric, metric: value} for name, value in scores.items()}
    return plain | {"protocols": of, "absent": absent, "failed": failed or {}}


def drawn(results, **options):
    """The axes, drawn: their texts are then all there."""
    figure = transfer_figure(transfer_entries(results, **options))
    figure.canvas.draw()
    return figure.axes


def heights(ax):
    """Of each container by its label."""
    return {bar.get_label(): [patch.get_height() for patch in bar] for bar in ax.containers}


def texts(ax):
    return [text.get_text() for text in ax.texts]


def ticks(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


def test_bars_are_the_scores_and_marks_the_published_ones():
    results = [
        result("runs/x", "cifar10", linear=61.24, knn=50.0),
        result("runs/x", "dtd", linear=30.0, knn=20.0),
        result("random", "cifar10", linear=33.0),
        result("random", "dtd", linear=11.0),
    ]
    linear, knn = drawn(results)
    assert heights(linear) == {"runs/x": [61.24, 30.0], "random": [33.0, 11.0]}
    assert heights(knn) == {"runs/x": [50.0, 20.0]}
    marks = {line.get_label(): list(line.get_ydata()) for line in linear.lines}
    assert marks == {
        "SimCLR (4x), published": [95.3, 78.9],
        "supervised (4x), published": [95.7, 78.7],
        "SimCLR (1x), published": [90.6, 74.5],
    }
    assert not knn.lines
    assert [ax.get_title("left") for ax in (linear, knn)] == ["Linear evaluation", "kNN"]
    assert {"61.2", "30.0", "33.0", "11.0"} == set(texts(linear))
    legend = [text.get_text() for text in linear.get_legend().get_texts()]
    assert legend[:2] == ["runs/x", "random"]
    assert len(legend) == 5


def test_a_bar_stands_over_its_set_beside_the_others():
    results = [result(t, d, linear=50.0) for t in ("a", "b") for d in ("cifar10", "dtd")]
    (ax,) = drawn(results)
    spans = sorted(
        (p.get_x(), p.get_x() + p.get_width(), i) for c in ax.containers for i, p in enumerate(c)
    )
    assert [i for *_, i in spans] == [0, 0, 1, 1]
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    marks = [x for line in ax.lines for x in line.get_xdata()]
    assert not any(left <= x <= right for x in marks for left, right, _ in spans)
    assert all(abs((left + right) / 2 - i) < 0.5 for left, right, i in spans)
    assert ticks(ax) == ["CIFAR-10\ntop-1", "DTD\ntop-1"]
    assert list(ax.get_yticks()) == [0, 20, 40, 60, 80, 100]


def test_what_is_missing_is_a_gap_that_says_so():
    results = [
        result("a", "dtd", absent="get it"),
        result("b", "dtd", absent="get it"),
        result("a", "cifar10", failed={"linear": "no"}),
        result("b", "cifar10", linear=50.0),
        result("a", "flowers102", linear=60.0),
    ]
    (ax,) = drawn(results)
    assert heights(ax) == {"a": [60.0], "b": [50.0]}
    assert sorted(texts(ax)) == ["50.0", "60.0", "absent", "failed", "not run"]
    assert len(ticks(ax)) == 3
    (ax,) = drawn([result("a", name, absent="get it") for name in SIMCLR12])
    assert texts(ax) == ["absent"] * 12
    assert ax.get_title("left") == "No protocol was run"


def test_subsets_and_cuts_are_told_apart():
    cut = result("a", "caltech101", linear=50.0, differs="16 a class")
    cut["protocols"]["finetune"] = {"accuracy": 3.0, "cut": CUT}
    linear, tuned = drawn([cut, result("a", "dtd", finetune=4.0)])
    assert ticks(linear)[1] == "Caltech-101\nmean per class\n(16 a class)"
    assert ticks(linear)[0] == "DTD\ntop-1"
    assert tuned.get_title("left") == f"Fine-tuned (hatched: {CUT})"
    assert [p.get_hatch() or "" for p in tuned.containers[0]] == ["", "////"]


def test_of_retrieval_the_first_recall_is_drawn():
    scores = {"recall@1": 30.0, "recall@2": 40.0, "nmi": 50.0}
    (ax,) = drawn([result() | {"protocols": {"retrieval": scores}}])
    assert heights(ax) == {"runs/x": [30.0]}
    assert ticks(ax) == ["CIFAR-10\nR@1"]


def test_six_of_many_targets_are_drawn_each_in_its_colour():
    names = [*"abcdefgh", "random"]
    results = [result(name, linear=50.0) for name in names]
    results += [result("h", "dtd", finetune=50.0)]
    figure = transfer_figure(transfer_entries(results))
    (ax,) = figure.axes
    assert list(heights(ax)) == [*"abcde", "random"]
    colours = [to_hex(bars[0].get_facecolor()) for bars in ax.containers]
    assert colours == [*COLOURS[:5], "#9a9aa5"]
    assert figure.get_supxlabel() == "6 of 9 targets; the table has all."


def test_any_name_is_in_the_legend_as_it_is(tmp_path):
    (ax,) = drawn([result("_a$b$", linear=50.0), result("x" * 80, linear=50.0)])
    first, second, *_ = [text.get_text() for text in ax.get_legend().get_texts()]
    assert first == r" _a\$b\$"
    assert second == f"…{'x' * 30}"


@pytest.mark.parametrize("sets", [2, 12])
def test_a_png_of_sane_size(tmp_path, sets):
    results = [result("runs/x", name, linear=50.0) for name in list(SIMCLR12)[:sets]]
    path = transfer_chart(results, tmp_path / "new" / "chart.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        width, height = image.size
    assert 800 < width < 2500
    assert 300 < height < 600
    assert 10_000 < path.stat().st_size < 500_000
    assert [p.name for p in path.parent.iterdir()] == ["chart.png"]


def test_an_svg_says_what_is_there(tmp_path):
    results = [result(linear=50.0), result("random", linear=math.nan)]
    path = transfer_chart(results, tmp_path / "chart.svg")
    found = re.findall(r"<!-- (.*?) -->", path.read_text())
    assert {"50.0", "failed", "CIFAR-10"} <= set(found)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match=r"a chart is a \.png or a \.svg, not 'x\.pdf'"):
        transfer_chart([result(linear=50.0)], tmp_path / "x.pdf")
    with pytest.raises(ValueError, match="needs results"):
        transfer_chart([], tmp_path / "x.png")
