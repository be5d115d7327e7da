"""The linear probe's path and kNN beside their peers: eval/results/evaluation.json and .png.

    pip install -e '.[test]'
    python eval/benchmarks/evaluation.py
    python eval/benchmarks/evaluation.py --device cuda --rows 1281167 --width 2048 --classes 1000

Features are drawn: classes about their centres, mixed, and cut off at zero as a ReLU does. The path
is logistic regression at each of the protocol's 45 regularisers, from strong to weak, each fit
beginning at the last; scikit-learn's lbfgs goes down the same path by its `warm_start`, once, with
its own tolerance and 1,000 iterations at most. Neighbours are searched for all test features at
k = 200; lightly's `knn_predict` gets them in batches of 256 and of all. Times are medians over
rounds in which all take turns in one process; peak memory is of a process of its own, above what
stood before the call. On a CUDA device only our own path is timed, by the clock after a warm-up.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from records import RESULTS, provenance

from sslkit.evaluation import KNN
from sslkit.evaluation.linear import L2
from sslkit.evaluation.logistic import Objective, minimise

K = 200
VALUES = sorted(L2, reverse=True)
Pair = tuple[Tensor, Tensor]


def drawn(n: int, width: int, classes: int, seed: int, device: str = "cpu") -> Pair:
    """Features (n, width) and labels of classes that overlap."""
    fixed, own = (torch.Generator(device).manual_seed(s) for s in (1000, seed))
    centres = 0.12 * torch.randn(classes, width, generator=fixed, device=device)
    mix = torch.randn(width, width, generator=fixed, device=device) / width**0.5
    labels = torch.randint(classes, (n,), generator=own, device=device)
    features = torch.empty(n, width, device=device)
    for rows in torch.arange(n, device=device).split(2**17):
        noise = torch.randn(len(rows), width, generator=own, device=device)
        features[rows] = ((centres[labels[rows]] + noise) @ mix).relu_()
    return features, labels


def accuracy(weight: Tensor, bias: Tensor, test: Pair) -> float:
    return 100 * ((test[0] @ weight.T + bias).argmax(1) == test[1]).double().mean().item()


def our_path(train: Pair, test: Pair, classes: int) -> list[float]:
    """The accuracy on test at each value."""
    mean = train[0].mean(0)
    objective = Objective(train[0] - mean, train[1], classes)
    state, found = objective.start(), []
    for value in VALUES:
        state = minimise(objective, state, value)
        weight = state.weight[:, :-1]
        found.append(accuracy(weight, state.weight[:, -1] - weight @ mean, test))
    return found


def sklearn_path(train: Pair, test: Pair, classes: int) -> list[float]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    peer, found = LogisticRegression(warm_start=True, max_iter=1000), []
    for value in tqdm(VALUES, "scikit-learn", leave=False, disable=None):
        peer.C = 1 / (value * len(train[1]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            peer.fit(train[0].numpy(), train[1].numpy())
        weight, bias = (torch.from_numpy(x).float() for x in (peer.coef_, peer.intercept_))
        if len(bias) == 1:
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        found.append(accuracy(weight, bias, test))
    return found


def our_knn(train: Pair, test: Pair, classes: int) -> Tensor:
    return KNN(min(K, len(train[1]))).fit(*train).predict(test[0])


def lightly_knn(batch: int | None) -> Callable[[Pair, Pair, int], Tensor]:
    def predict(train: Pair, test: Pair, classes: int) -> Tensor:
        from lightly.utils.benchmarking import knn_predict

        bank, k = normalize(train[0]).T, min(K, len(train[1]))
        parts = normalize(test[0]).split(batch or len(test[0]))
        return torch.cat([knn_predict(x, bank, train[1], classes, k, 0.07)[:, 0] for x in parts])

    return predict


PATHS = {"sslkit": our_path, "scikit-learn": sklearn_path}
NEIGHBOURS = {
    "sslkit": our_knn,
    "lightly, 256 at a time": lightly_knn(256),
    "lightly, all at once": lightly_knn(None),
}


def timed(call: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call(*args)
    if args[0][0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def in_turns(
    calls: dict[str, Callable[..., Any]], repeats: dict[str, int], *args: Any
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each, and what it returned."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results = {}
    for turn in range(max(repeats.values())):
        for name, call in calls.items():
            if turn < repeats[name]:
                taken, results[name] = timed(call, *args)
                seconds[name].append(taken)
    return {name: statistics.median(taken) for name, taken in seconds.items()}, results


def _peak(queue: Any, name: str, sizes: tuple[int, int, int, int]) -> None:
    rows, queries, width, classes = sizes
    train, test = drawn(rows, width, classes, 0), drawn(queries, width, classes, 1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is what is held now
    before = high_water()
    NEIGHBOURS[name](train, test, classes)
    queue.put(high_water() - before)


def high_water() -> float:
    """Megabytes of this process at its peak (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_memory(name: str, sizes: tuple[int, int, int, int]) -> float:
    """Megabytes that the search adds to a process that holds the features."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(queue, name, sizes))
    process.start()
    found = queue.get(timeout=600)
    process.join()
    return found


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def on_cpu(args: argparse.Namespace, classes: int) -> dict[str, Any]:
    train = drawn(args.rows, args.width, classes, 0)
    test = drawn(args.queries, args.width, classes, 1)
    given = (train, test, classes)
    repeats = {"sslkit": args.repeats, "scikit-learn": 1}
    seconds, curves = in_turns(PATHS, repeats, *given)
    cell = {
        "path": {
            "seconds": {name: rounded(taken) for name, taken in seconds.items()},
            "scikit-learn over sslkit": rounded(seconds["scikit-learn"] / seconds["sslkit"]),
            "best accuracy": {name: rounded(max(curve)) for name, curve in curves.items()},
            # Above 1 the logits are all but equal, and scikit-learn stops where it stands.
            "largest difference in accuracy at l2 of 1 or less": rounded(
                max(
                    abs(ours - theirs)
                    for value, ours, theirs in zip(VALUES, *curves.values(), strict=True)
                    if value <= 1
                )
            ),
        }
    }
    seconds, found = in_turns(NEIGHBOURS, dict.fromkeys(NEIGHBOURS, args.repeats), *given)
    quickest = min(taken for name, taken in seconds.items() if name != "sslkit")
    sizes = (args.rows, args.queries, args.width, classes)
    cell["kNN"] = {
        "seconds": {name: rounded(taken) for name, taken in seconds.items()},
        "quickest lightly over sslkit": rounded(quickest / seconds["sslkit"]),
        "predictions unlike lightly's": {
            name: int((labels != found["sslkit"]).sum())
            for name, labels in found.items()
            if name != "sslkit"
        },
        "peak megabytes": {name: round(peak_memory(name, sizes)) for name in NEIGHBOURS},
    }
    return cell


def on_cuda(args: argparse.Namespace, classes: int) -> dict[str, Any]:
    device = "cuda"
    train = drawn(args.rows, args.width, classes, 0, device)
    test = drawn(args.queries, args.width, classes, 1, device)
    our_path((train[0][:4096], train[1][:4096]), test, classes)
    torch.cuda.reset_peak_memory_stats()
    seconds, curves = in_turns({"sslkit": our_path}, {"sslkit": args.repeats}, train, test, classes)
    return {
        "path": {
            "seconds": {"sslkit": rounded(seconds["sslkit"])},
            "best accuracy": {"sslkit": rounded(max(curves["sslkit"]))},
            "peak gigabytes": rounded(torch.cuda.max_memory_allocated() / 2**30),
            "gigabytes of the features": rounded(train[0].nbytes / 2**30),
        }
    }


def draw(record: dict[str, Any], path: Path) -> None:
    """Bars of seconds: the path, and the search."""
    from matplotlib.figure import Figure

    kinds = {"path": f"linear probe, {len(L2)} values", "kNN": f"kNN, k = {K}"}
    kinds = {
        key: title for key, title in kinds.items() if key in next(iter(record["classes"].values()))
    }
    figure = Figure(figsize=(4.6 * len(kinds), 3.4), layout="constrained")
    for axes, (kind, title) in zip(
        figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True
    ):
        labels, heights, colours = [], [], []
        for classes, cell in record["classes"].items():
            for i, (name, taken) in enumerate(cell[kind]["seconds"].items()):
                labels.append(f"{name}\n{classes} classes")
                heights.append(taken)
                colours.append(("#0072b2", "#d55e00", "#cc79a7")[i])
        bars = axes.barh(labels[::-1], heights[::-1], color=colours[::-1])
        axes.bar_label(bars, [f"{h:.3g} s" for h in heights[::-1]], padding=3, fontsize=8)
        axes.set(title=title, xlabel="seconds")
        axes.margins(x=0.18)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    rows = f"{record['rows']:,} x {record['width']} features"
    figure.suptitle(f"{rows}, {record['queries']:,} to test with, {record['hardware']}", fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000, help="features to train with")
    parser.add_argument("--queries", type=int, default=10_000, help="features to test with")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--repeats", type=int, default=3, help="rounds; scikit-learn has one")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    args = parser.parse_args()
    given = {k: v for k, v in vars(args).items() if k != "results" and v != parser.get_default(k)}
    words = [
        f"--{k} {' '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in given.items()
    ]
    record = provenance(" ".join(["python eval/benchmarks/evaluation.py", *words]))
    if args.device == "cuda":
        record["hardware"] = torch.cuda.get_device_name()
    record |= {k: getattr(args, k) for k in ("rows", "queries", "width", "repeats")}
    measure = on_cuda if args.device == "cuda" else on_cpu
    record["threads"] = torch.get_num_threads()
    record["classes"] = {str(n): measure(args, n) for n in tqdm(args.classes, "classes")}
    args.results.mkdir(parents=True, exist_ok=True)
    stem = "evaluation" if args.device == "cpu" else f"evaluation_{args.rows}x{args.width}_cuda"
    path = args.results / f"{stem}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    draw(record, path.with_suffix(".png"))
    print(path)


if __name__ == "__main__":
    main()
