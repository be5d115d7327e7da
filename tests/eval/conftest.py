import pickle
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EVAL = Path(__file__).parents[2] / "eval"


@pytest.fixture
def script(monkeypatch):
    """What a script of eval/ defines, without running it: `script("recipe")["main"]`.

    The functions see a value that is set in their ``__globals__``.
    """
    monkeypatch.setattr(sys, "path", [str(EVAL), *sys.path])
    return lambda name: runpy.run_path(str(EVAL / f"{name}.py"))


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """200 training images in the files of CIFAR-10, which this process takes for the real ones."""
    rng, folder = np.random.default_rng(0), tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        images = rng.integers(0, 256, (40, 3072), np.uint8)
        labels = rng.integers(0, 10, 40).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": images, "labels": labels}))
    words = [f"class {i}" for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": words}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    monkeypatch.setenv("SSLKIT_DATA", str(folder.parent))
    return tmp_path
