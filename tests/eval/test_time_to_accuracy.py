import copy
import json
import math
import pickle
import runpy
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import Subset

from sslkit.cli.config import parse

BENCHMARK = Path(__file__).parents[2] / "eval" / "benchmarks" / "time_to_accuracy.py"
RECIPE = """
model:
  class_path: sslkit.methods.SimCLR
  init_args:
    backbone: {class_path: sslkit.backbones.ResNet9, init_args: {width: 8}}
    view:
      class_path: sslkit.views.SimCLRViews
      init_args: {size: 32, jitter: 0.5, blur: false, normalize: cifar10}
    optimizer: {name: muon, lr: 0.004, momentum: 0.95, lr_scaling: none, warmup_epochs: 1}
    temperature: 0.2
data: {name: cifar10, batch_size: 16}
trainer:
  max_epochs: 4
  callbacks:
  - class_path: sslkit.callbacks.ProgressiveResizing
    init_args: {sizes: [16], share: 0.5}
"""


@pytest.fixture
def benchmark(monkeypatch):
    """Its functions, without running it; a value that is set is seen by all of them."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    return runpy.run_path(str(BENCHMARK))["main"].__globals__


@pytest.fixture
def cifar(cifar):
    (cifar / "recipe.yaml").write_text(RECIPE)
    return cifar


def options(folder, *more):
    argv = ["--config", folder / "recipe.yaml", "--width", 2, "--images", 200, "--held-out", 40]
    argv += ["--batch", 32, "--seconds", 6, "--points", 2, "--results", folder / "results", *more]
    return [str(word) for word in argv]


def test_a_crossing_by_hand(benchmark):
    reached = benchmark["summary"].__globals__["reached"]
    curve = [[10.0, 30.0], [20.0, 50.0], [30.0, 40.0], [40.0, 60.0]]
    assert reached(curve, 45.0) == 17.5  # three quarters of the way from 10 to 20
    assert reached(curve, 50.0) == 20.0
    assert reached(curve, 55.0) == 37.5  # after the fall
    assert reached(curve, 30.0) == reached(curve, 10.0) == 10.0  # nothing is known before
    assert reached(curve, 60.1) is None
    assert reached([[10.0, 30.0], [20.0, 30.0]], 30.0) == 10.0


def test_a_plan_by_hand(benchmark):
    planned = benchmark["planned"]
    assert planned(60.0, [0.5], 0.0, 8) == 120
    # Of 100 steps 70 are small, 35 of each size: 35 x 0.1 + 35 x 0.3 + 30 x 0.5 = 29 seconds.
    assert planned(29.0, [0.1, 0.3, 0.5], 0.7, 8) == 100
    assert planned(1.0, [10.0], 0.0, 8) == 8


def test_a_meter_leaves_out_the_first_steps(benchmark, monkeypatch):
    at, costs = [0.0], [100.0] * benchmark["WARM"] + [2.0] * 4
    monkeypatch.setattr(benchmark["time"], "perf_counter", lambda: at[0])
    meter, enough = benchmark["Meter"](7.0, False), []
    for done, cost in enumerate(costs, 1):
        at[0] += cost
        enough.append(meter.stepped(done))
    assert enough == [False] * (len(costs) - 1) + [True]  # 6 seconds are not, 8 are
    assert meter.cost == 2.0


def test_the_clock_stands_still_while_the_network_is_judged(benchmark, monkeypatch):
    at = [0.0]
    monkeypatch.setattr(benchmark["time"], "perf_counter", lambda: at[0])

    def judge():
        at[0] += 1000.0
        return 50.0

    watch = benchmark["Watch"](5, 2, judge, False)
    watch.start()
    last = []
    for done in range(1, 6):
        at[0] += 3.0
        last.append(watch.stepped(done))
    watch.bar.close()
    assert watch.curve == [[6.0, 50.0], [15.0, 50.0]]  # after round(2.5) and 5 steps
    assert last == [False, False, False, False, True]


def run(arm, budget, seed, *curve, rate=100.0):
    seconds = curve[-1][0]
    about = {"arm": arm, "budget": budget, "seed": seed, "curve": [list(p) for p in curve]}
    about |= {"seconds": seconds, "images": int(rate * seconds), "epochs": 1.5, "commit": "abc"}
    return about | {"images per second": rate, "seconds before the first step": 3.0}


def test_a_summary_by_hand(benchmark):
    lightly, same, recipe = benchmark["summary"].__globals__["ARMS"]
    runs = [
        run(lightly, 60.0, 0, (30.0, 40.0), (61.0, 49.0)),
        run(lightly, 60.0, 1, (30.0, 40.0), (59.0, 51.0)),  # 50 % after 60 s on average
        run(same, 60.0, 0, (30.0, 45.0), (60.0, 55.0)),  # at 45
        run(same, 60.0, 1, (30.0, 40.0), (60.0, 60.0)),  # at 45
        run(recipe, 20.0, 0, (10.0, 50.0), (20.0, 60.0)),  # at 10
        run(recipe, 20.0, 1, (10.0, 40.0), (20.0, 49.0)),  # never
        run(recipe, 60.0, 0, (10.0, 40.0), (60.0, 70.0)),  # at 26.67
        run(recipe, 60.0, 1, (10.0, 30.0), (60.0, 80.0)),  # at 30
    ]
    found = benchmark["summary"](runs)
    assert (found["lightly's accuracy"], found["lightly's seconds"]) == (50.0, 60.0)
    assert found["of each seed"] == {"0": 49.0, "1": 51.0}
    assert found["ours"] == {
        f"{same}, 60 s": {
            "accuracy": 57.5,
            "seconds to lightly's accuracy": {"0": 45.0, "1": 45.0},
            "times sooner": 1.333,
        },
        f"{recipe}, 20 s": {
            "accuracy": 54.5,
            "seconds to lightly's accuracy": {"0": 10.0, "1": None},
            "times sooner": None,
        },
        f"{recipe}, 60 s": {
            "accuracy": 75.0,
            "seconds to lightly's accuracy": {"0": 26.67, "1": 30.0},
            "times sooner": 2.118,
        },
    }
    assert found["best"] == f"{recipe}, 60 s"
    lines = benchmark["table"]({"runs": runs, "summary": found}).splitlines()
    assert lines[2] == f"| {lightly}, 60 s | 60.0 | 100.0 | 1.5 | 50.0 |  |  |"
    assert lines[4] == f"| {recipe}, 20 s | 20.0 | 100.0 | 1.5 | 54.5 | 10.0 never |  |"
    assert lines[5].endswith(" | 75.0 | 26.7 30.0 | 2.12 times |")
    assert benchmark["summary"](runs[:2])["best"] is None


def job(arm, folder, benchmark):
    args = benchmark["arguments"](options(folder))[1]
    return {**benchmark["prepared"](args), "arm": arm, "budget": 6.0, "seed": 7, "began": 0.0}


def test_all_arms_train_the_same_weights_on_the_same_images(benchmark, cifar, monkeypatch):
    """Twelve steps of each, and what there is at the start and in every step."""
    arms = benchmark["summary"].__globals__["ARMS"]
    kept, weights, rates, seen = {}, {}, {arm: [] for arm in arms}, {arm: [] for arm in arms}

    def timed(self, train, model, batch, views):
        kept[self.arm] = copy.deepcopy(model), batch, views
        weights[self.arm] = {k: v.clone() for k, v in self.backbone.state_dict().items()}
        assert any(part is self.backbone for part in model.modules())

        def see(backbone, images):
            if backbone.training:  # and not the copy that sizes are tried on
                seen[self.arm].append((len(images[0]), images[0].shape[-1]))

        def rate(optimizer, *_):
            rates[self.arm].append(optimizer.param_groups[0]["lr"])

        with self.backbone.register_forward_pre_hook(see), register_optimizer_step_pre_hook(rate):
            train(12, lambda: None, lambda done: done == 12)

    def subset(images, rows):
        kept["rows"] = list(rows)
        return Subset(images, rows)

    def parsed(argv):
        cli = parse(argv)
        nn.init.zeros_(cli.model.backbone.stem[0].weight)  # whatever it drew
        return cli

    monkeypatch.setattr("sslkit.cli.config.parse", parsed)
    monkeypatch.setattr("torch.utils.data.Subset", subset)
    monkeypatch.setattr(benchmark["Run"], "timed", timed)
    monkeypatch.setattr("sslkit.training.keep_freed_memory", lambda: None)
    for arm in arms:
        one = benchmark["Run"](job(arm, cifar, benchmark))
        benchmark["lightly" if arm == "lightly" else "sslkit"](one)
    first, *others = weights.values()
    assert first["stem.0.weight"].shape[0] == 2
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(first[key], other[key]) for key in first)
    assert kept.pop("rows") == list(range(160))
    assert [batch for _, batch, _ in kept.values()] == [32, 32, 16]
    assert [views[:3] for *_, views in kept.values()] == [
        *(("imagenet", [32], 0.0), ("cifar10", [32], 0.0), ("cifar10", [16, 32], 0.5))
    ]
    assert list(seen.values()) == [
        *([(32, 32)] * 24, [(64, 32)] * 12, [(32, 16)] * 6 + [(32, 32)] * 6)
    ]
    cosine = [0.06 / 128 * 32 * (1 + math.cos(math.pi * i / 12)) / 2 for i in range(12)]
    # A quarter of the run to warm up, as one of four epochs is in the config.
    warm = [1 / 3, 2 / 3, 1.0, *((1 + math.cos(math.pi * i / 9)) / 2 for i in range(9))]
    assert rates[arms[0]] == pytest.approx(cosine)
    assert rates[arms[1]] == pytest.approx(cosine)
    assert rates[arms[2]] == pytest.approx([0.004 * share for share in warm])
    theirs, ours, recipe = (model for model, *_ in kept.values())
    assert (recipe.loss.temperature, recipe.optimizer.name) == (0.2, "muon")
    x = torch.randn(8, 16)
    z = ours.projector(x)
    torch.testing.assert_close(z, theirs[1](x))
    torch.testing.assert_close(ours.loss(*z.chunk(2)), NTXentLoss()(*z.chunk(2)))
    (group,) = ours.optimizer.build(ours, 256).param_groups
    assert len(group["params"]) == len(list(theirs.parameters()))
    keys = ("lr", "momentum", "weight_decay", "nesterov")
    assert [group[key] for key in keys] == [pytest.approx(0.12), 0.9, 5e-4, False]


def test_no_test_image_and_no_image_twice(benchmark, cifar):
    train, bank, held_out = benchmark["data"](200, 40)
    names = [f"data_batch_{i}" for i in range(1, 6)]
    folder = cifar / "data" / "cifar-10-batches-py"
    parts = [pickle.loads((folder / name).read_bytes())["data"] for name in names]
    expected = torch.from_numpy(np.concatenate(parts)).reshape(-1, 3, 32, 32)
    assert torch.equal(torch.cat([train.images, held_out.images]), expected)
    assert (len(train), len(held_out)) == (160, 40)
    assert torch.equal(bank.images, train.images[:10_000])


def test_a_run_goes_back_to_where_it_was_before_it_was_measured(benchmark, cifar, monkeypatch):
    """A toy whose every step adds 1 to its weight and takes a second of a stand-in's clock."""
    at, sizes, seen = [0.0], [], []
    monkeypatch.setattr(benchmark["time"], "perf_counter", lambda: at[0])
    monkeypatch.setattr(benchmark["Run"], "accuracy", lambda *_: 10.0)
    one = benchmark["Run"](job("lightly", cifar, benchmark) | {"budget": 30.0})
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)

    def train(steps, start, stepped):
        seen.append((steps, model.weight.item(), torch.rand(()).item()))
        start()
        for done in range(1, steps + 1):
            at[0] += 0.5 if sizes[-1] == 16 and steps > 10**6 else 1.0
            with torch.no_grad():
                model.weight.add_(1)
            if stepped(done):
                return

    result = one.timed(
        train, model, 32, benchmark["Views"]("imagenet", [16, 32], 0.5, sizes.append)
    )
    assert sizes == [16, 32]
    assert [weight for _, weight, _ in seen] == [0.0, 8.0, 0.0]
    torch.manual_seed(7)
    assert seen[-1][0] == 40  # 30 s of 0.5 x 0.5 + 0.5 x 1.0 s a step
    assert seen[-1][2] == torch.rand(()).item()
    assert result["curve"] == [[20.0, 10.0], [40.0, 10.0]]
    assert (result["seconds"], result["images"], result["epochs"]) == (40.0, 1280, 8.0)
    assert result["images per second"] == 32.0


@pytest.fixture
def drawn(benchmark, monkeypatch):
    """Runs that are made up; the list of those that were asked for."""
    asked = []

    def in_a_process(job):
        asked.append((job["arm"], job["budget"], job["seed"]))
        if len(asked) == 4:
            raise KeyboardInterrupt
        t = job["budget"]
        final = 40.0 + 10 * benchmark["summary"].__globals__["ARMS"].index(job["arm"]) + job["seed"]
        return run(*asked[-1], (t / 2, 35.0), (t, final))

    monkeypatch.setitem(benchmark, "in_a_process", in_a_process)
    return asked


def test_a_stopped_record_goes_on(benchmark, cifar, drawn, capsys):
    lightly, same, recipe = benchmark["summary"].__globals__["ARMS"]
    argv = options(cifar, "--seeds", 0, 1)
    with pytest.raises(KeyboardInterrupt):
        benchmark["main"](argv)
    path = cifar / "results" / "time_to_accuracy.json"
    assert len(json.loads(path.read_text())["runs"]) == 3
    benchmark["main"](argv)
    order = [(lightly, 6.0), (same, 6.0), (recipe, 6.0), (same, 2.0), (recipe, 2.0)]
    expected = [(*arm, seed) for seed in (0, 1) for arm in order]
    assert drawn[:3] + drawn[4:] == expected
    assert drawn[3] == expected[3]
    record = json.loads(path.read_text())
    assert [(r["arm"], r["budget"], r["seed"]) for r in record["runs"]] == expected
    assert record["versions"]["lightly"]
    assert record["settings"]["recipe"]["data"] == {"name": "cifar10", "batch_size": 16}
    assert record["settings"]["backbone"]["init_args"] == {"width": 2}
    assert record["command"].endswith(" --width 2 --batch 32 --images 200 --held-out 40")
    assert str(cifar / "results") not in path.read_text()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(order)
    assert last == str(path)
    with pytest.raises(SystemExit) as refused:
        benchmark["main"]([*argv, "--points", "3"])
    assert refused.value.code == 2
    assert "is of other settings: move it away" in capsys.readouterr().err.splitlines()[-1]
    assert json.loads(path.read_text()) == record


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seconds", "0"], "argument --seconds: must be 0.1 or more, not 0"),
        (["--seconds", "nan"], "argument --seconds: must be 0.1 or more, not nan"),
        (["--fractions", "1", "0"], "argument --fractions: must be 1 or more, not 0"),
        (["--points", "0"], "argument --points: must be 1 or more, not 0"),
        (["--width", "0"], "argument --width: must be 1 or more, not 0"),
        (["--seeds", "-1"], "argument --seeds: must be 0 or more, not -1"),
        (["--held-out", "200"], "without --held-out 200 no fewer than a batch of 32"),
        (["--batch", "161"], "no fewer than a batch of 161"),
        (["--images", "201"], "--images 201 must be no more than the 200 there are"),
        (["--config", "simclr_cifar11"], "no config 'simclr_cifar11' (did you mean"),
        (["--config", "rotation_cifar10_cpu"], "rotation_cifar10_cpu must be of SimCLR"),
        (["--config", "simclr_cifar10"], "ResNet has no option 'width'"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_bad_options_are_refused(benchmark, cifar, more, said, capsys):
    with pytest.raises(SystemExit) as refused:
        benchmark["main"](options(cifar, *more))
    assert refused.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (cifar / "results").exists()


def test_a_run_that_fails_ends_it(benchmark, cifar, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(SystemExit, match="lightly, seed 0, failed"):
        benchmark["main"](options(cifar))
    assert not (cifar / "results" / "time_to_accuracy.json").exists()


@pytest.mark.slow  # five processes, each with its imports
def test_a_tiny_run_ends_in_a_record_a_picture_and_a_table(cifar, monkeypatch):
    """On files that torchvision takes for CIFAR-10's in every process that there is."""
    believed = """
        import torchvision.datasets.cifar as cifar
        cifar.check_integrity = lambda *_: True
    """
    (cifar / "sitecustomize.py").write_text(textwrap.dedent(believed))
    monkeypatch.setenv("PYTHONPATH", str(cifar))
    command = [sys.executable, str(BENCHMARK), *options(cifar, "--seconds", 1, "--seeds", 3)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = cifar / "results" / "time_to_accuracy.json"
    record = json.loads(path.read_text())
    assert len(record["runs"]) == 5
    for one in record["runs"]:
        batch = 16 if one["arm"] == "sslkit, our recipe" else 32
        (first, _), (last, accuracy) = one["curve"]
        assert 0 < first < last == one["seconds"]
        assert 0 <= accuracy <= 100
        assert one["images"] % batch == 0
        assert one["epochs"] == pytest.approx(one["images"] / 160, abs=0.01)
        assert one["images per second"] == pytest.approx(one["images"] / last, rel=0.02)
        assert one["seconds before the first step"] > 0
        assert one["commit"]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    *lines, said = done.stdout.splitlines()
    assert said == str(path)
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        *("| lightly, 1 s", "| sslkit, same settings, 1 s", "| sslkit, our recipe, 1 s"),
        *("| sslkit, same settings, 0.333 s", "| sslkit, our recipe, 0.333 s"),
    ]
