import json
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


def test_tables_by_hand(script):
    tables = script("tables")
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
    lines = tables["readme_tables"].table({"c": record}).splitlines()
    assert lines[2] == "| `c` | cifar10 | 30.0 ± 0.0 | 61.0 ± 1.4 | 40.0 ± 0.0 | 70.0 ± 0.0 |"
    assert lines[4] == "`c`: 2 seeds, 2 min of pretraining on a CPU, `python x`."
    scores = {"trained": {"cars196": {"recall@1": 9.0, "nmi": 40.0, "f1": 2.0}}}
    scores["random"] = {"cars196": {"recall@1": 5.0, "nmi": 30.0, "f1": 1.0}}
    metric = {"runs": [{"pretraining_seconds": 60, "accuracy": scores}]}
    runs = {"c": record, "m": {**metric, "hardware": "a CPU", "command": "python y"}}
    made = tables["readme_tables"]
    assert made.table(runs).splitlines() == lines
    assert made.table(runs, made.RETRIEVAL).splitlines()[2:] == [
        *("| `m` | cars196 | 5.0 | 9.0 | 30.0 | 40.0 |", ""),
        "`m`: 1 seed, 1 min of pretraining on a CPU, `python y`.",
    ]
    assert made.expected(runs["m"]).splitlines()[0] == (
        "cars196 Recall@1 9.0 % (random weights 5.0 %), cars196 NMI 40.0 % (random weights 30.0 %)"
    )
    assert tables["between"]("x", "new", "a <!-- x -->\nold\n<!-- /x --> b") == (
        "a <!-- x -->\nnew\n<!-- /x --> b"
    )
    with pytest.raises(ValueError, match="lacks <!-- y -->"):
        tables["between"]("y", "new", "nothing")


def test_the_best_layer_is_the_best_on_validation(script):
    tables = script("tables")

    def run(last, validation):
        scores = {"knn": 30.0, "linear": 40.0, "validation": validation}
        layers = {"a": scores, "b": {"knn": 50.0, "linear": last, "validation": 45.0}}
        accuracy = {"trained": layers, "random": {"a": scores, "b": scores}}
        return {"accuracy": accuracy, "pretraining_seconds": 90, "hardware": "a CPU"}

    methods = {"SimCLR": [run(60.0, 44.0), run(62.0, 46.0)], "colorization": [run(50.0, 0.0)]}
    budget = {"data": "cifar10", "training images": 20000, "epochs": 3}
    record = {"command": "python x", "budget": budget, "methods": methods}
    lines = tables["readme_tables"].by_method(record).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        *("| random", "| random, grey images", "| colorization", "| SimCLR")
    ]
    # b is the better layer of the first run, a of the second, by what was held out.
    assert lines[5] == ("| SimCLR | 50.0 ± 0.0 | 61.0 ± 1.4 | 40.0 ± 14.1 | 50.0 ± 14.1 | 1.5 |")
    assert "| SimCLR | 40.0 ± 0.0 | 61.0 ± 1.4 |" in lines
    assert lines[-1] == (
        "cifar10, 3 epochs of 20,000 images on a CPU; seeds: colorization 1, SimCLR 2; `python x`."
    )


@pytest.mark.slow
def test_methods_leave_a_record_and_add_to_it(tmp_path):
    argv = ["--data", "shapes", "--images", 256, "--epochs", 1, "--limit", 300]
    argv += ["--out", tmp_path / "runs", "--results", tmp_path]
    small = ["--", "--model.backbone.width", 2, "--trainer.log_every_n_steps", 1]
    for name in ("rotation", "colorization"):
        done = run("methods.py", "--methods", name, *argv, *small)
        assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "methods.json").read_text())
    assert record["command"] == (
        "python eval/methods.py --seeds 0 --methods rotation colorization --epochs 1 --images 256 "
        "--data shapes --limit 300 -- --model.backbone.width 2 --trainer.log_every_n_steps 1"
    )
    assert list(record["methods"]) == ["rotation", "colorization"]
    for name, weights in (("rotation", {"trained"}), ("colorization", {"trained", "random"})):
        (found,) = record["methods"][name]
        assert (found["seed"], found["accuracy"].keys()) == (0, weights)
        assert list(found["accuracy"]["trained"]) == ["stem", "stage1", "stage2", "stage3"]
        assert found["commit"]
    other = run("methods.py", *argv, "--epochs", 2, *small)
    assert "is of another budget" in other.stderr


@pytest.mark.slow
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


def test_the_evaluation_benchmarks_table_by_hand(script):
    tables = script("tables")
    cell = {
        "path": {
            "seconds": {"sslkit": 2.0, "scikit-learn": 50.0},
            "best accuracy": {"sslkit": 70.04, "scikit-learn": 69.96},
        },
        "kNN": {"seconds": {"sslkit": 1.0, "lightly": 2.5}},
    }
    about = {"rows": 50_000, "width": 512, "queries": 100, "hardware": "a CPU", "command": "x"}
    lines = (
        tables["readme_tables"].evaluation_speed({**about, "classes": {"10": cell}}).splitlines()
    )
    assert lines[0] == "| seconds | 10 classes |"
    assert lines[2] == "| linear probe, 45 values: sslkit | 2 |"
    assert lines[3] == "| linear probe, 45 values: scikit-learn | 50 (25.0) |"
    assert lines[5] == "| kNN, k = 200: lightly | 2.5 (2.5) |"
    assert "sslkit and scikit-learn: 70.0 and 70.0. Measured on a CPU: `x`." in lines[-1]


def test_results_of_elsewhere_take_the_place_of_what_has_no_score(script):
    added = script("transfer")["added"]
    scored = {"target": "a", "backbone": "b", "data": "dtd", "protocols": {"knn": {}}}
    absent = {"target": "a", "backbone": "b", "data": "cifar10", "protocols": {}}
    other = {**absent, "protocols": {"knn": {"accuracy": 1.0}}}
    assert added([scored, absent], other) == [scored, other]
    with pytest.raises(SystemExit, match="a on dtd has no place of its own"):
        added([scored, absent], {**scored, "protocols": {}})
