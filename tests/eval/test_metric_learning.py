import json
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslkit.data import ArrayDataset

EVAL = Path(__file__).parents[2] / "eval"


@pytest.fixture
def driver(monkeypatch):
    """The script's functions, without running it; a value that is set is seen by all of them."""
    monkeypatch.setattr(sys, "path", [str(EVAL), *sys.path])
    return runpy.run_path(str(EVAL / "metric_learning.py"))["main"].__globals__


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EVAL), *sys.path])
    return runpy.run_path(str(EVAL / "metric_tables.py"))


def cell(seed, recall, **more):
    scores = {"nmi": 50.0 + seed, "f1": 10.0, "recall@1": recall, "recall@2": 60.0}
    scores |= {"recall@4": 70.0, "recall@8": 80.0}
    curve = [[10, recall - 8], [20, recall]]
    return {"seed": seed, **scores, "curve": curve, "seconds": 60.0 + seed, **more}


def record(**rows):
    choice = {
        "triplet": [
            cell(0, 30.0, candidate={"lr": 0.0005, "normalize": True}),
            cell(0, 31.0, candidate={"lr": 0.002, "normalize": True}),
        ],
        "N-pair": [cell(0, 9.0, candidate={"lr": 0.002, "normalize": False})],
    }
    part = {"choice": choice, "before": [cell(0, 20.0), cell(1, 22.0)], "rows": rows}
    setup = {"steps": 20, "steps to choose": 10}
    sets = {"omniglot": {"random weights": part}}
    return {"hardware": "a CPU", "command": "python x", "setup": setup, "sets": sets}


def test_tables_by_hand(tables):
    found = tables["blocks"](
        {
            "metric_learning": record(
                **{
                    "triplet": [cell(0, 40.0), cell(1, 42.0)],
                    "DAML (triplet)": [cell(0, 44.0), cell(1, 46.0)],
                    "DE-DSP (triplet)": [cell(0, 41.0), cell(1, 43.0)],
                    "N-pair": [cell(0, 50.0)],
                    "DAML (N-pair)": [cell(0, 49.5)],
                }
            )
        },
        {},
    )
    lines = found["rows"].splitlines()
    assert lines[0] == "### Omniglot, from random weights"
    assert lines[2] == "| method | NMI | F1 | R@1 | R@2 | R@4 | R@8 |"
    assert lines[4].startswith(
        "| random weights, not trained | 50.5 ± 0.7 | 10.0 ± 0.0 | 21.0 ± 1.4"
    )
    assert lines[5].startswith("| triplet | 50.5 ± 0.7 | 10.0 ± 0.0 | 41.0 ± 1.4 | 60.0 ± 0.0 |")
    assert lines[8].startswith("| N-pair | 50.0 | 10.0 | 50.0 |")
    assert "2 seed(s), at most 1.0 min a row and seed." in lines
    gains = dict(line.strip("| ").split(" | ") for line in found["gains"].splitlines()[2:])
    # 45 - 41 and 42 - 41, of runs of variance 2 each
    assert gains["DAML (triplet) over triplet"] == "**+4.0 ± 2.0**"
    assert gains["DE-DSP (triplet) over triplet"] == "+1.0 ± 2.0"
    assert gains["DAML (N-pair) over N-pair"] == "-0.5"
    assert "| triplet | 33.0 ± 1.4 | 41.0 ± 1.4 |" in found["steps"]
    assert "| triplet | 0.002, length 1 |" in found["choice"]
    assert "| N-pair | 0.002, any length |" in found["choice"]
    assert "| DE-DSP (N-pair) | 64.4 | 33.3 | 72.9 | 81.6 | 88.8 |  |" in found["published"]


def test_without_a_record_nothing_is_claimed(tables):
    assert tables["blocks"]({}, {})["gains"] == "Not measured yet."


def test_halves_share_no_class_and_are_the_whole(driver):
    labels = torch.arange(7).repeat_interleave(3)[torch.randperm(21)]
    images = labels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    first, second = driver["halves"](ArrayDataset(images, labels))
    shown = [set(part.images[:, 0, 0, 0].tolist()) for part in (first, second)]
    assert (len(shown[0]), len(shown[1])) == (3, 4)
    assert shown[0] | shown[1] == set(range(7))
    for part in (first, second):
        classes = part.labels.unique()
        assert classes.tolist() == list(range(len(classes)))
        for label in classes:
            assert len(part.images[part.labels == label, 0, 0, 0].unique()) == 1


def test_what_is_in_the_record_is_not_run_again(driver, tmp_path, monkeypatch):
    ran = []

    def fake(job):
        ran.append(job)
        recall = 10 * job["chosen"].get("lr", 0) + job["chosen"].get("normalize", 0) + job["seed"]
        return cell(job["seed"], recall)

    monkeypatch.setitem(driver, "run", fake)
    monkeypatch.setitem(driver, "untrained", fake)
    monkeypatch.setitem(driver, "self_supervised", lambda args, name: f"runs/{name}")
    card = {"method": "SimCLR", "step": 540, "commit": "c0ffee", "size": 28}
    monkeypatch.setitem(driver, "load_backbone", lambda folder: (None, card))
    monkeypatch.setitem(
        driver, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(jobs)
    )

    def go(*argv):
        ran.clear()
        driver["main"](["--sets", "omniglot", "--results", str(tmp_path), "--steps", "8", *argv])
        return json.loads((tmp_path / "metric_learning.json").read_text())

    rows = ["--rows", "triplet", "DAML (triplet)", "angular"]
    found = go("--seeds", "0", *rows)
    # for each start: 2 candidates of triplets, 4 of angular; random weights, and three rows
    assert len(ran) == 2 * (2 + 4 + 1 + 3)
    assert {job["start"] for job in ran} == {None, "runs/omniglot"}
    chosen = [job["chosen"] for job in ran if job["row"] == "angular" and not job["half"]]
    assert chosen == [{"lr": 0.002, "normalize": True}] * 2
    assert {job["steps"] for job in ran if not job["half"]} == {8}
    weights = found["sets"]["omniglot"]["SimCLR"]["weights"]
    assert weights == {"method": "SimCLR", "step": 540, "commit": "c0ffee"}
    again = go("--seeds", "0", *rows)
    assert (len(ran), again) == (0, found)
    more = go("--seeds", "0", "1", *rows)
    assert sorted(job["row"] for job in ran) == sorted([*rows[1:], "triplet"] * 2)
    seeds = [c["seed"] for c in more["sets"]["omniglot"]["SimCLR"]["rows"]["angular"]]
    assert seeds == [0, 1]
    assert more["command"] == (
        "python eval/metric_learning.py --sets omniglot --seeds 0 1 --steps 8 --steps-to-choose 100"
    )
    with pytest.raises(SystemExit):
        go("--seeds", "0", "--steps-to-choose", "7", *rows)


def test_costs_of_choosing(tables, tmp_path, monkeypatch):
    bench = runpy.run_path(str(EVAL / "benchmarks" / "sampling.py"))["main"].__globals__
    small = bench["SETS"]["omniglot"]._replace(width=2)
    monkeypatch.setitem(bench, "SETS", {"omniglot": small})
    monkeypatch.setitem(bench, "STEPS", 1)
    bench["main"](["--rounds", "1", "--results", str(tmp_path)])
    made = json.loads((tmp_path / "sampling.json").read_text())
    found = made["sets"]["omniglot"]
    assert list(found["seconds a step"]) == ["triplet", "DE-DSP (triplet)", "PADS (triplet)"]
    assert found["over the loss"]["triplet"] == 1
    assert all(seconds > 0 for seconds in found["seconds a step"].values())
    made["sets"]["omniglot"] = {
        "seconds a step": {"triplet": 0.1, "PADS (triplet)": 0.1034},
        "over the loss": {"triplet": 1.0, "PADS (triplet)": 1.034},
    }
    said = tables["blocks"]({"sampling": made}, {})["costs"]
    assert "| Omniglot | 100.0 (1.00) | 103.4 (1.03) |" in said.splitlines()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--sets", "cub"], "invalid choice: 'cub'"),
        (["--seeds", "-1"], "must be 0 or more, not -1"),
        (["--steps", "3"], "must be 4 or more, not 3"),
        (["--rows", "DE-DSP"], "invalid choice: 'DE-DSP'"),
    ],
)
def test_bad_options_are_one_line(driver, argv, said, capsys):
    with pytest.raises(SystemExit) as exit:
        driver["main"](argv)
    assert exit.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_rows_of_a_small_omniglot(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for part, first in (("images_background", 0), ("images_evaluation", 100)):
        for character in range(64):
            folder = tmp_path / "omniglot-py" / part / "Script" / f"character{character:02d}"
            folder.mkdir(parents=True)
            for i in range(7):
                pixels = rng.integers(0, 2, (105, 105), np.uint8) * 255
                Image.fromarray(pixels).save(folder / f"{first + character:04d}_{i:02d}.png")
    monkeypatch.setenv("SSLKIT_DATA", str(tmp_path))
    command = [sys.executable, str(EVAL / "metric_learning.py"), "--sets", "omniglot", "--seeds"]
    command += ["0", "--rows", "triplet", "DAML (triplet)", "DE-DSP (N-pair)", "--epochs", "1"]
    command += ["--steps", "4", "--steps-to-choose", "1", "--out", str(tmp_path / "runs")]
    command += ["--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "metric_learning.json").read_text())["sets"]["omniglot"]
    assert list(found) == ["random weights", "SimCLR"]
    for part in found.values():
        assert len(part["choice"]["triplet"]) == 2
        for cells in part["rows"].values():
            (only,) = cells
            assert [step for step, _ in only["curve"]] == [1, 2, 3, 4]
            assert only["curve"][-1][1] == only["recall@1"]
            assert 0 <= only["nmi"] <= 100
        assert "harder" in part["rows"]["DAML (triplet)"][0]["watched"][-1]
        assert "rank" in part["rows"]["DE-DSP (N-pair)"][0]["watched"][-1]
