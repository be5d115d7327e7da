"""Time and peak memory of the losses, forward and backward, beside peers and the plain version.

    pip install -e '.[bench]'
    python eval/benchmarks/losses.py                  # eval/results/losses.json and losses.png
    python eval/benchmarks/losses.py --device cuda --pairs 4096 65536 1048576

Times are medians over rounds in which all contenders of a size take turns in one process; the
first call of a turn, whose caches are the others', does not count; who needs longer than the
budget of all rounds for one pass has the time of that pass. Peak memory, above the inputs, is of a
process of its own, in which a tiny call went before (on a CUDA device, of the allocator there). A
contender that asks for more memory than there is, or needs longer than the patience, is a cell that
says so; on a CUDA device the time is foretold from the contender's last size, and who failed at one
size is not asked again at the next.
"""

import argparse
import json
import math
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from records import RESULTS, provenance

from sslkit import losses

WIDTH = 128  # of the embeddings
TEMPERATURE = 0.5
CLASSES, PER_CLASS = 64, 8  # of the metric-learning losses' batch
PEERS = ("lightly", "pytorch-metric-learning")
Loss = Callable[..., Tensor]


def plain(z0: Tensor, z1: Tensor) -> Tensor:
    """NT-Xent as it is often written: a cross-entropy over the whole matrix."""
    n = len(z0)
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)
    logits = (z @ z.T / TEMPERATURE).masked_fill(itself, -math.inf)
    return F.cross_entropy(logits, torch.arange(2 * n, device=z.device).roll(n))


def nt_xent(name: str) -> Loss:
    """A contender's NT-Xent of two views."""
    if name == "lightly":
        from lightly.loss import NTXentLoss

        return NTXentLoss(TEMPERATURE)
    if name == "pytorch-metric-learning":
        from pytorch_metric_learning.losses import NTXentLoss as Peer

        peer = Peer(TEMPERATURE)

        def of_views(z0: Tensor, z1: Tensor) -> Tensor:
            images = torch.arange(len(z0), device=z0.device)
            return peer(torch.cat([z0, z1]), images.repeat(2))

        return of_views
    return plain if name == "plain" else partial(losses.nt_xent, temperature=TEMPERATURE)


def metric(name: str, loss: str) -> Loss:
    """A contender's metric-learning loss of embeddings and labels, over the whole batch."""
    if name == "sslkit":
        ours = {
            "triplet": losses.TripletMarginLoss(),
            "N-pair": losses.NPairLoss(),
            "lifted": losses.LiftedStructureLoss(),
            "angular": losses.AngularLoss(),
        }
        return ours[loss]
    from pytorch_metric_learning import losses as peer

    theirs = {
        "triplet": peer.TripletMarginLoss,
        "N-pair": peer.NPairsLoss,
        "lifted": peer.LiftedStructureLoss,
        "angular": peer.AngularLoss,
    }
    return theirs[loss]()


def case(name: str, loss: str, n: int, device: str) -> tuple[Loss, tuple[Tensor, ...]]:
    """A contender and its inputs: n pairs of views, or a batch with labels."""
    torch.manual_seed(0)
    if loss == "NT-Xent":
        z0, z1 = (torch.randn(n, WIDTH, device=device, requires_grad=True) for _ in range(2))
        return nt_xent(name), (z0, z1)
    labels = torch.arange(n, device=device) % max(n // PER_CLASS, 2)
    embeddings = F.normalize(torch.randn(n, WIDTH, device=device), dim=1).requires_grad_()
    return metric(name, loss), (embeddings, labels)


def seconds(function: Loss, inputs: tuple[Tensor, ...]) -> float:
    """Of one forward and backward pass."""
    for tensor in inputs:
        tensor.grad = None
    wait = torch.cuda.synchronize if inputs[0].is_cuda else lambda: None
    wait()
    started = time.perf_counter()
    function(*inputs).backward()
    wait()
    return time.perf_counter() - started


def status(key: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def memory(name: str, loss: str, n: int, device: str) -> dict[str, float]:
    """Peak memory in MB above the inputs, and the seconds of that pass; in a fresh process."""
    seconds(*case(name, loss, 16, device))
    function, inputs = case(name, loss, n, device)
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        available = next(
            1024 * int(line.split()[1])
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("MemAvailable")
        )
        most = status("VmSize") + int(0.9 * available)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        before = status("VmRSS")
        took = seconds(function, inputs)
        peak = status("VmHWM") - before
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        took = seconds(function, inputs)
        peak = torch.cuda.max_memory_allocated() - before
    return {"seconds": took, "megabytes": peak / 1e6}


def times(names: list[str], loss: str, n: int, device: str, budget: float) -> dict[str, float]:
    """The median seconds of contenders that take turns."""
    cases = {name: case(name, loss, n, device) for name in names}
    first = {name: seconds(*of) for name, of in cases.items()}
    rounds = max(1, min(100, int(budget / sum(first.values()) / 2)))
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, of in cases.items():
            seconds(*of)
            taken[name].append(seconds(*of))
    return {name: statistics.median(values) for name, values in taken.items()}


def in_a_process(patience: float, *call: Any) -> Any:
    """The result of one of the functions above; a string says why there is none."""
    command = [sys.executable, __file__, "--call", json.dumps(call)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        return f"over {patience:.0f} s"
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    *_, last = done.stderr.strip().splitlines() or [""]
    if done.returncode == -9 or re.search("OutOfMemory|MemoryError|(enough|allocate) memory", last):
        return "out of memory"
    raise RuntimeError(f"{call} failed:\n{done.stderr}")


def in_this_process(*call: Any) -> Any:
    """As above, on a CUDA device, which counts memory itself and lets go of it."""
    name, *rest = call
    try:
        return CALLS[name](*rest)
    except torch.OutOfMemoryError:
        return "out of memory"
    except RuntimeError as error:  # a peer's tensor of more elements than an operator takes
        return str(error).splitlines()[0]
    finally:
        torch.cuda.empty_cache()


def compare(
    names: list[str], loss: str, n: int, args: argparse.Namespace, bar: Any
) -> dict[str, Any]:
    """Milliseconds and megabytes of each contender at one size."""
    cells: dict[str, Any] = {}
    cuda = args.device == "cuda"
    for name in names:
        bar.set_postfix_str(f"{loss}, {n}, {name}")
        call = ("memory", name, loss, n, args.device)
        if not cuda:
            cells[name] = in_a_process(args.patience, *call)
        elif isinstance(last := LAST.get(name, 0.0), str):
            cells[name] = last
        elif last * n**2 > args.patience:
            cells[name] = f"over {args.patience:.0f} s"
        else:
            cells[name] = in_this_process(*call)
        bar.update()
    able = [name for name in names if isinstance(cells[name], dict)]
    found = {name: cells[name]["seconds"] for name in able}
    if loss == "NT-Xent":  # whose time grows as the pairs squared
        LAST.update({name: taken / n**2 for name, taken in found.items()})
        LAST.update({name: cell for name, cell in cells.items() if isinstance(cell, str)})
    quick = [name for name in able if found[name] <= args.budget]
    call = ("times", quick, loss, n, args.device, args.budget)
    patience = 60 + args.patience * (len(able) + 2)
    timed = (in_this_process(*call) if cuda else in_a_process(patience, *call)) if quick else {}
    found = timed if isinstance(timed, str) else found | timed
    for name in able:
        if isinstance(found, str):
            cells[name] = found
            continue
        cells[name] = {
            "milliseconds": float(f"{1e3 * found[name]:.4g}"),
            "megabytes": round(cells[name]["megabytes"], 1),
        }
    return cells


def draw(record: dict[str, Any], path: Path) -> None:
    """NT-Xent's time and memory over the number of pairs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    titles = {"milliseconds": "time, ms", "megabytes": "peak memory above the inputs, MB"}
    for axes, (unit, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for colour, name in zip(
            ("#0072b2", "#009e73", "#d55e00", "#cc79a7"), CONTENDERS, strict=True
        ):
            points = [
                (int(n), cells[name][unit])
                for n, cells in record["NT-Xent"].items()
                if isinstance(cells[name], dict) and cells[name][unit] > 0
            ]
            axes.plot(
                *zip(*points or [(math.nan, math.nan)], strict=True),
                "o-",
                color=colour,
                label=name,
                markersize=4,
            )
        axes.set(xscale="log", yscale="log", xlabel="pairs", title=title)
        sizes = [int(n) for n in record["NT-Xent"]]
        axes.set_xticks(sizes, [f"{n}" for n in sizes], rotation=30)
        axes.minorticks_off()
        axes.grid(color="#d9d9e0", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"NT-Xent, forward and backward, D = {WIDTH}, {record['hardware']}")
    figure.savefig(path, dpi=110)


CONTENDERS = ("sslkit", "plain", *PEERS)
CALLS = {"memory": memory, "times": times}
LAST: dict[str, float | str] = {}  # of a contender: seconds over pairs squared, or its failure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [16, 64, 256, 1024, 4096, 16384, 65536]
    parser.add_argument("--pairs", nargs="+", type=int, default=sizes)
    parser.add_argument("--batch", type=int, default=CLASSES * PER_CLASS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--budget", type=float, default=20, help="seconds of rounds a size")
    parser.add_argument("--patience", type=float, default=200, help="seconds a call may take")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.call:
        name, *rest = json.loads(args.call)
        print(json.dumps(CALLS[name](*rest)))
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    command = "python eval/benchmarks/losses.py"
    if args.pairs != sizes:
        command += " --pairs " + " ".join(map(str, args.pairs))
    for key in ("batch", "budget", "patience"):
        if (value := getattr(args, key)) != parser.get_default(key):
            command += f" --{key} {value:g}"
    record = provenance(command + (" --device cuda" if args.device == "cuda" else ""))
    record["versions"] |= {peer: version(peer) for peer in PEERS}
    metrics = ("triplet", "N-pair", "lifted", "angular")
    duels = ["sslkit", "pytorch-metric-learning"]
    total = len(args.pairs) * len(CONTENDERS) + len(metrics) * len(duels)
    args.results.mkdir(parents=True, exist_ok=True)
    stem = args.results / ("losses" if args.device == "cpu" else f"losses_{args.device}")
    views: dict[str, Any] = {}
    batch: dict[str, Any] = {}
    record |= {"NT-Xent": views, f"batch of {args.batch}": batch}
    with tqdm(total=total, unit="cell") as bar:
        for loss in metrics:
            batch[loss] = compare(duels, loss, args.batch, args, bar)
            stem.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        for n in args.pairs:
            views[str(n)] = compare(list(CONTENDERS), "NT-Xent", n, args, bar)
            stem.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    draw(record, stem.with_suffix(".png"))
    print(stem.with_suffix(".json"))


if __name__ == "__main__":
    main()
