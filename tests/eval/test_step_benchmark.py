import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

STEP = Path(__file__).parents[2] / "eval" / "benchmarks" / "step.py"


@pytest.fixture(scope="module")
def step():
    """The benchmark's functions, without running it."""
    before = list(sys.path)
    yield runpy.run_path(str(STEP))
    sys.path[:] = before


@pytest.mark.slow
def test_a_tiny_run_ends_in_a_record_and_a_table(tmp_path):
    argv = ["--device", "cpu", "--batches", "4", "--images", "8", "--steps", "2", "--warmup", "1"]
    argv += ["--config", "simclr_shapes", "--optimizers", "sgd", "--compile", "no"]
    command = [sys.executable, str(STEP), *argv, "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "step.json").read_text())
    assert record["command"] == (
        "python eval/benchmarks/step.py --config simclr_shapes --batches 4 --optimizers sgd "
        "--compile no --images 8 --steps 2 --warmup 1 --device cpu"
    )
    (cell,) = record["cells"]
    assert (cell["batch"], cell["optimiser"], cell["compiled"]) == (4, "sgd", False)
    assert min(cell["milliseconds"].values()) >= 0
    assert cell["images per second"] * cell["seconds an epoch"] == pytest.approx(50_000, rel=1e-2)
    ratio = cell["images per second in Lightning"] / cell["images per second"]
    assert 0.2 < ratio < 5
    parts = cell["milliseconds in Lightning"]
    share = parts["loop"] / sum(parts.values())
    assert cell["share of the loop"] == pytest.approx(share, rel=1e-2)
    assert record["images per second, memory returned"] > 0
    assert record["seconds to the first step"] > 0
    *lines, first, path = done.stdout.splitlines()
    assert path == str(tmp_path / "step.json")
    assert first == f"first step {record['seconds to the first step']} s after the command"
    assert lines[2].startswith("| 4 | sgd | eager | ")
    picture = (tmp_path / "step.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    redrawn = subprocess.run([*command[:2], "--draw", str(tmp_path / "step.json")])
    assert redrawn.returncode == 0
    assert (tmp_path / "step.png").read_bytes() == picture


def test_a_step_trains_as_one_loss_would(step):
    """Its parts, with a backward pass each, leave the gradients of one backward pass."""
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(0)
    method = step["simclr"]("simclr_cifar10_cpu", "sgd")
    kept = {}

    class Keep(torch.optim.SGD):
        def step(self):
            kept.update({n: p.grad.clone() for n, p in method.named_parameters()})

    batch = step["Images"](images, torch.zeros(8), torch.arange(8))
    clock = step["step"](method, Keep(method.parameters()), iter([batch]), 3)
    assert len(clock.laps()) == len(step["PARTS"])
    assert min(clock.laps()) >= 0
    method.view.manual_seed(3)
    views, _ = method.make_views(images)
    method.zero_grad()
    method.loss(*method.projector(method.backbone(torch.cat(views))).chunk(2)).backward()
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(kept[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_the_table_by_hand(step):
    cell = {
        "batch": 512,
        "optimiser": "lars",
        "compiled": True,
        "images per second": 20_000.0,
        "seconds an epoch": 2.5,
        "milliseconds": dict(zip(step["PARTS"], (1, 2, 3, 4, 8, 2), strict=True)),
        "images per second in Lightning": 18_000.0,
        "share of the loop": 0.031,
    }
    assert step["table"]([cell]).splitlines()[2] == (
        "| 512 | lars | compiled | 20,000 | 2.5 | 5.0 % | 10.0 % | 15.0 % | 20.0 % | 40.0 % "
        "| 10.0 % | 18,000 | 3.1 % |"
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--batches", "1"], "must be 2 or more, not 1"),
        (["--batches", "8", "--images", "4"], "8 is more than the 4 --images"),
        (["--optimizers", "adam"], "invalid choice: 'adam'"),
        (["--config", "simclr_cifar"], "no config 'simclr_cifar' (did you mean simclr_cifar10?)"),
        (["--draw", "nowhere.json"], "no record nowhere.json"),
        (["--draw", __file__], "is no record, not even JSON"),
        (["--steps", "many"], "invalid int value: 'many'"),
    ],
)
def test_bad_options_are_refused(step, argv, said, capsys):
    with pytest.raises(SystemExit) as refused:
        step["main"](argv)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
