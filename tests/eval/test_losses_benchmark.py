import argparse
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

LOSSES = Path(__file__).parents[2] / "eval" / "benchmarks" / "losses.py"


@pytest.fixture
def losses():
    """The benchmark's functions, without running it."""
    before = list(sys.path)
    yield runpy.run_path(str(LOSSES))
    sys.path[:] = before


def test_on_a_device_nobody_is_asked_beyond_memory_or_patience(losses):
    """By stand-ins, for want of a GPU."""
    asked = []

    def memory(name, loss, n, device):
        asked.append((name, n))
        if name == "plain" and n > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if name == "peer":
            raise RuntimeError("nonzero is not supported\nfor more")
        return {"seconds": n**2 * 1e-6, "megabytes": n / 4}

    def times(names, *_):
        return dict.fromkeys(names, 0.5)

    losses["CALLS"].update(memory=memory, times=times)
    bar = SimpleNamespace(set_postfix_str=lambda text: None, update=lambda: None)
    args = argparse.Namespace(device="cuda", patience=10.0, budget=1.0)

    def compare(n):
        return losses["compare"](["sslkit", "plain", "peer"], "NT-Xent", n, args, bar)

    quick = {"milliseconds": 500.0, "megabytes": 25.0}
    lacks = "nonzero is not supported"
    assert compare(100) == {"sslkit": quick, "plain": quick, "peer": lacks}
    # One pass of 2000 pairs takes 4 s, more than the budget: its time stands.
    slow = {"milliseconds": 4000.0, "megabytes": 500.0}
    assert compare(2000) == {"sslkit": slow, "plain": "out of memory", "peer": lacks}
    assert compare(4000) == {"sslkit": "over 10 s", "plain": "out of memory", "peer": lacks}
    assert asked == [(name, 100) for name in ("sslkit", "plain", "peer")] + [
        ("sslkit", 2000),
        ("plain", 2000),
    ]
