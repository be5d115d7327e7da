import math
import re

import numpy as np
import pytest

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
    }
    found = texts(curves(metrics, "loss"))
    assert {"loss", "train/loss", "val/loss", "step (3 values not finite)"} <= set(found)
    found = texts(curves({"one": ([7], [3.0])}, "alone"))
    assert {"alone", "step"} <= set(found)
    assert "one" not in found  # a single series needs no legend


def test_bars_show_every_accuracy():
    rows = [
        row(weights="random", knn=31.24),
        row(knn=61.26, linear=70.0),
        {**row(weights="timm"), "target": "only_map"},
    ]
    found = texts(scores_bar(rows, "cifar10"))
    expected = {"cifar10", "31.2", "61.3", "70.0", "random", "trained", "kNN", "linear"}
    assert expected <= set(found)
    assert "only_map" not in found
    assert "nan" not in found


def test_bad_input():
    with pytest.raises(ValueError, match="curves need metrics"):
        curves({}, "x")
    with pytest.raises(ValueError, match="scores_bar needs scores"):
        scores_bar([{"data": "x", "protocols": {"retrieval": {"map": 0.5}}}], "x")


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
