"""``sslkit demo``: SimCLR on the embedded set against random weights, in minutes, on a CPU."""

import time
from pathlib import Path

from sslkit.cli import evaluate, pretrain

OWN = ("--config", "--name", "--out", "--resume", "--trainer.devices", "--trainer.num_nodes")
ONE = ("--trainer.devices", "1")  # each process would run the whole demo
LIMIT = 10_000  # training images that the evaluation uses


def run(argv: list[str]) -> int:
    """Pretrain, evaluate, print the table; returns the exit code."""
    taken = [arg for arg in argv if arg.startswith(OWN)]
    if taken:
        raise ValueError(f"the demo sets {taken[0]} itself; sslkit pretrain takes it")
    started = time.perf_counter()
    run_dir = _free(Path("runs"))
    code = pretrain.run(["--config", "simclr_shapes", "--name", run_dir.name, *ONE, *argv])
    if code:
        return code
    protocols = evaluate.protocols_of(["knn", "linear"])
    results = evaluate.score([str(run_dir), "random"], ["shapes"], protocols, limit=LIMIT)
    scores = {r["weights"]: {k: v["accuracy"] for k, v in r["protocols"].items()} for r in results}
    print("\nAccuracy on the test images of 'shapes', %, from frozen features\n")
    print("                  kNN   linear")
    for name, weights in (("random weights", "random"), ("SimCLR", "trained")):
        print(f"{name:<16}{scores[weights]['knn']:5.1f}    {scores[weights]['linear']:5.1f}")
    print(f"\nin {time.perf_counter() - started:.0f} s")
    print(f"report      {run_dir / 'report.html'}")
    print(f"run folder  {run_dir}")
    return 0


def _free(out: Path) -> Path:
    """runs/demo, or the first of runs/demo-2, ... that is not there."""
    folder, number = out / "demo", 1
    while folder.exists():
        number += 1
        folder = out / f"demo-{number}"
    return folder
