import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "eval" / "benchmarks" / "evaluation.py"


@pytest.mark.slow  # three processes of their own for the peaks of memory
def test_a_tiny_run_ends_in_a_record_and_a_picture(tmp_path):
    argv = ["--rows", "2000", "--queries", "500", "--width", "32", "--classes", "5"]
    argv += ["--repeats", "1", "--results", str(tmp_path)]
    done = subprocess.run([sys.executable, str(BENCHMARK), *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "evaluation.json").read_text())
    cell = record["classes"]["5"]
    best = cell["path"]["best accuracy"]
    assert 30 < best["sslkit"] == pytest.approx(best["scikit-learn"], abs=1)
    assert set(cell["kNN"]["predictions unlike lightly's"].values()) == {0}
    seconds = cell["path"]["seconds"]
    ratio = seconds["scikit-learn"] / seconds["sslkit"]
    assert cell["path"]["scikit-learn over sslkit"] == pytest.approx(ratio, rel=1e-3)
    assert (tmp_path / "evaluation.png").read_bytes().startswith(b"\x89PNG")
