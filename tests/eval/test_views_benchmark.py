import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

EVAL = Path(__file__).parents[2] / "eval"
VIEWS = EVAL / "benchmarks" / "views.py"
CONTENDERS = [
    "sslkit",
    "kornia (slice)",
    "kornia (resample)",
    "torchvision, whole batch, one draw",
    "torchvision, tensors, one core",
    "torchvision, PIL, one core",
    "torchvision, PIL, workers",
    "lightly, PIL, one core",
]


@pytest.fixture(scope="module")
def views():
    """The benchmark's functions, without running it."""
    before = list(sys.path)
    yield runpy.run_path(str(VIEWS))
    sys.path[:] = before


def test_a_tiny_run_ends_in_a_record_and_a_picture(tmp_path):
    argv = ["--sizes", "8", "--batches", "4", "--repeats", "1", "--seconds", "0", "--blur"]
    command = [sys.executable, str(VIEWS), *argv, "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'views_blur.json'}\n"
    record = json.loads((tmp_path / "views_blur.json").read_text())
    assert record["command"] == (
        "python eval/benchmarks/views.py --sizes 8 --batches 4 --repeats 1 --seconds 0.0 --blur"
    )
    assert record["versions"]["lightly"]
    assert "training step" not in record
    cell = record["sizes"]["8"]
    rates = cell["views per second"]
    assert list(rates) == CONTENDERS
    assert min(rates.values()) > 0
    assert list(cell["ours over theirs"]) == CONTENDERS[1:]
    ratio = rates["sslkit"] / rates["kornia (slice)"]
    assert cell["ours over theirs"]["kornia (slice)"] == pytest.approx(ratio, rel=1e-3)
    assert list(cell["peak memory over views"]) == CONTENDERS[:3]
    assert (tmp_path / "views_blur.png").read_bytes().startswith(b"\x89PNG")
    table = (
        runpy.run_path(str(EVAL / "tables.py"))["readme_tables"].views_speed(record).splitlines()
    )
    assert table[0] == "| views a second (sslkit's over it) | 8 px |"
    assert table[2] == f"| sslkit | {rates['sslkit']:,.0f} |"
    assert table[3] == f"| kornia (slice) | {rates['kornia (slice)']:,.0f} ({ratio:.1f}) |"


def test_contenders_count_their_views(views):
    images = views["smooth"](6, 8)
    transform = views["torchvision"](8, False)
    assert views["one_by_one"](transform, images) == 6
    assert views["one_by_one"](lambda image: [image, image], images) == 12
    assert views["on_workers"](transform, list(images), 2)() == views["ROUNDS"] * 2 * 6
    for made in (views["sslkit"](8, False)(images), transform(images)):
        assert (made.shape, str(made.dtype)) == ((6, 3, 8, 8), "torch.float32")


def test_a_training_step_is_timed(views):
    """On a processor and with a tiny model, for want of a GPU."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    found = views["training_step"](model, views["smooth"](4, 8), False, rounds=1)
    assert model[1].weight.grad.any()
    times = found["milliseconds"]
    assert list(times) == ["two views", "forward and backward"]
    assert found["share of views"] == pytest.approx(
        times["two views"] / sum(times.values()), abs=1e-4
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--sizes", "7"], "must be 8 or more, not 7"),
        (["--sizes", "big"], "invalid int value: 'big'"),
        (["--repeats", "0"], "must be 1 or more, not 0"),
        (["--seconds", "nan"], "must be 0 or more, not nan"),
        (["--batches", "4"], "1 --batches for 3 --sizes"),
        (["--results", str(VIEWS)], "is no folder"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_bad_options_are_refused(views, argv, said, capsys):
    with pytest.raises(SystemExit) as refused:
        views["main"](argv)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
