import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EVAL = Path(__file__).parents[2] / "eval"


def run(script, *argv):
    command = [sys.executable, str(EVAL / script), *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_quotes_results_is_current():
    done = run("tables.py", "--check")
    assert (done.returncode, done.stdout) == (0, "all is current\n")


def test_tables_by_hand():
    tables = runpy.run_path(str(EVAL / "tables.py"))
    runs = [
        {
            "pretraining_seconds": seconds,
            "accuracy": {
                "trained": {"cifar10": {"knn": knn, "linear": 70.0}},
                "random": {"cifar10": {"knn": 30.0, "linear": 40.0}},
            },
        }
        for seconds, knn in ((60, 60.0), (180, 62.0))
    ]
    record = {"runs": runs, "hardware": "a CPU", "command": "python x"}
    lines = tables["table"]({"c": record}).splitlines()
    assert lines[2] == "| `c` | cifar10 | 30.0 ± 0.0 | 61.0 ± 1.4 | 40.0 ± 0.0 | 70.0 ± 0.0 |"
    assert lines[4] == "`c`: 2 seeds, 2 min of pretraining on a CPU, `python x`."
    assert tables["between"]("x", "new", "a <!-- x -->\nold\n<!-- /x --> b") == (
        "a <!-- x -->\nnew\n<!-- /x --> b"
    )
    with pytest.raises(ValueError, match="lacks <!-- y -->"):
        tables["between"]("y", "new", "nothing")


def test_measure_leaves_a_record(tmp_path):
    argv = ["simclr_shapes", "--data", "shapes", "--limit", 300, "--out", tmp_path / "runs"]
    argv += ["--results", tmp_path, "--", "--model.backbone.width", 2, "--data.limit", 512]
    argv += ["--trainer.max_epochs", 1, "--trainer.log_every_n_steps", 1, "--wandb", "disabled"]
    done = run("measure.py", *argv)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "simclr_shapes.json").read_text())
    assert record["config"]["model"]["init_args"]["backbone"]["init_args"]["width"] == 2
    assert record["hardware"]
    expected = "python eval/measure.py simclr_shapes --data shapes --limit 300 -- --model.backbone"
    assert record["command"].startswith(expected)
    assert str(tmp_path) not in json.dumps(record)
    assert record["versions"]["torch"]
    (first,) = record["runs"]
    assert first["seed"] == 0
    assert first["training_images_of_the_scores"] == {"shapes": 300}
    for weights in ("trained", "random"):
        assert 5 < first["accuracy"][weights]["shapes"]["knn"] < 90
    (tmp_path / "others" / "simclr_shapes-seed0").mkdir(parents=True)
    foreign = run("measure.py", "simclr_shapes", "--data", "shapes", "--out", tmp_path / "others")
    assert "is a run of something else" in foreign.stderr
    other = run("measure.py", *argv, "--data.batch_size", 64)
    assert other.returncode == 1
    assert "began with options" in other.stderr
    notes = tmp_path / "runs" / "simclr_shapes-seed0.measure.json"
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {"running": True}))
    assert "its time is unknown" in run("measure.py", *argv).stderr
