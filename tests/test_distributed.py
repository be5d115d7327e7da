import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import sslkit.losses
from sslkit.distributed import all_gather, all_sum

SCRIPT = Path(__file__).parents[1] / "eval" / "benchmarks" / "processes.py"
LOSSES = [
    name
    for name in sslkit.losses.__all__
    if isinstance(getattr(sslkit.losses, name), type)
    and issubclass(getattr(sslkit.losses, name), nn.Module)
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Every loss over 1, 2 and 4 processes beside the whole batch in one."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, str(SCRIPT), "--without-peers", "--results", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "processes.json").read_text())["losses"]


@pytest.mark.parametrize("split", ["1 equal", "2 equal", "2 unequal", "4 equal", "4 unequal"])
@pytest.mark.parametrize("loss", LOSSES)
def test_averaged_gradient_and_value_are_those_of_the_whole_batch(measured, loss, split):
    variants = [name for name in measured if name.split(",")[0] == loss]
    assert variants, f"{loss} is missing in {SCRIPT.name}"
    for name in variants:
        expected = {"norm": 1, "cosine": 1, "value": 1}
        assert measured[name][split] == pytest.approx(expected, abs=1e-6), name


def test_identity_in_a_single_process():
    x = torch.randn(3, 2)
    assert all_gather(x) is x
    assert all_sum(x) is x
