import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from sslkit.dashboard import curves, scores_bar
from sslkit.dashboard.plots import _noisy, _smooth, panels


def texts(svg):
    """matplotlib writes each text as a comment above its outlines."""
    return re.findall(r"<!-- (.*?) -->", svg.decode())


def row(data="cifar10", weights="trained", **protocols):
    scores = {name: {"accuracy": value} for name, value in protocols.items()}
    return {"data": data, "weights": weights, "target": "runs/x", "protocols": scores}


def test_known_metrics_come_first_and_every_name_is_drawn_once():
    names = ["z/b", "online/knn", "epoch", "lr", "val/loss", "lr-SGD/pg1", "train/loss", "a"]
    groups = panels(dict.fromkeys(names, ([0], [1.0])))
    titles = ["loss", "online kNN (higher is better)", "learning rate", "a", "b"]
    assert list(groups) == titles
    drawn = sorted(name for group in groups.values() for name in group)
    assert drawn == sorted(set(names) - {"epoch"})


def test_curves_title_their_panels_and_count_what_is_not_finite():
    metrics = {
        "train/loss": ([0, 1, 2], [1.0, math.nan, math.inf]),
        "val/loss": ([0], [math.nan]),
        "one": ([7], [3.0]),
    }
    found = texts(curves(metrics))
    assert {"loss", "one", "train/loss", "val/loss", "step", "step (3 values not finite)"} <= set(
        found
    )


def test_png_has_a_panel_a_column():
    metrics = {name: ([0, 1], [0.0, 1.0]) for name in "abcde"}
    wide, tall = (
        Image.open(io.BytesIO(curves(metrics, columns=columns, format="png"))).size
        for columns in (5, 2)
    )
    assert wide == (5 * 540, 375)
    assert tall == (2 * 540, 3 * 375)


def test_bars_show_every_accuracy_with_its_data_set():
    rows = [
        row(weights="random", knn=31.24),
        row(knn=61.26, linear=70.0),
        row(data="stl10", knn=0),
        row(data="only_map", weights="timm"),
    ]
    found = texts(scores_bar(rows))
    assert {"cifar10", "stl10", "31.2", "61.3", "70.0", "0.0", "random", "trained"} <= set(found)
    assert "only_map" not in found
    assert "nan" not in found


@pytest.mark.parametrize("columns", [0, -1])
def test_bad_input(columns):
    with pytest.raises(ValueError, match="curves need metrics"):
        curves({})
    with pytest.raises(ValueError, match="curves need metrics"):
        curves({"a": ([0], [1.0])}, columns=columns)
    with pytest.raises(ValueError, match="scores_bar needs accuracies"):
        scores_bar([{"data": "x", "protocols": {"retrieval": {"map": 0.5}}}])
    with pytest.raises(ValueError, match="scores_bar needs accuracies"):
        scores_bar([row(knn=1.0)], columns=columns)


def test_smoothing_keeps_a_constant_and_a_line_and_is_not_for_smooth_series():
    rng = np.random.default_rng(0)
    line = np.linspace(0, 1, 300)
    noisy = line + rng.normal(size=300) * 0.2
    assert np.allclose(_smooth(np.full(50, 3.0), 0.05), 3)
    assert np.allclose(_smooth(line, 0.05)[100:200], line[100:200], atol=1e-3)  # no lag
    assert np.abs(_smooth(noisy, 0.05) - line).mean() < np.abs(noisy - line).mean() / 2
    assert _noisy(noisy)
    assert not _noisy(line)
    assert not _noisy(noisy[:100])
    assert not _noisy(np.full(300, np.nan))
