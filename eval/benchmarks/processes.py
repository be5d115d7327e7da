"""The gradient and value of every loss over processes: eval/results/processes.json.

    pip install -e '.[bench]'
    python eval/benchmarks/processes.py

Each process has its part of a batch, equal or not; gradients are averaged over processes, as DDP
does, and held against those of one process with the whole batch: their ratio of norms and their
cosine should be 1, and so should the ratio of the values. Float64, gloo, on the CPU.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from records import RESULTS, provenance

from sslkit import losses, miners

BATCH = 128  # so many that the streamed losses stream
PARTS = {
    (1, "equal"): [128],
    (2, "equal"): [64, 64],
    (2, "unequal"): [71, 57],
    (4, "equal"): [32, 32, 32, 32],
    (4, "unequal"): [35, 19, 40, 34],
}
Views = list[Tensor]
Make = Callable[[], Callable[[Views, Tensor], Tensor]]


def of_views(module: nn.Module, count: int = 2) -> Callable[[Views, Tensor], Tensor]:
    return lambda z, labels: module(*z[:count])


def of_labels(module: nn.Module) -> Callable[[Views, Tensor], Tensor]:
    return lambda z, labels: module(z[0], labels)


def with_queue(module: nn.Module) -> Callable[[Views, Tensor], Tensor]:
    keys = torch.randn(20, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return lambda z, labels: module(z[0], z[1], keys)


OURS: dict[str, Make] = {
    "NTXentLoss": lambda: of_views(losses.NTXentLoss()),
    "NTXentLoss, 3 views": lambda: of_views(losses.NTXentLoss(), 3),
    "InfoNCELoss": lambda: of_views(losses.InfoNCELoss()),
    "InfoNCELoss, queue": lambda: with_queue(losses.InfoNCELoss()),
    "SupConLoss": lambda: of_labels(losses.SupConLoss()),
    "DecoupledNTXentLoss": lambda: of_views(losses.DecoupledNTXentLoss(sigma=0.5)),
    "HardNTXentLoss": lambda: of_views(losses.HardNTXentLoss()),
    "NTLogisticLoss": lambda: of_views(losses.NTLogisticLoss(temperature=0.5)),
    "MarginTripletLoss": lambda: of_views(losses.MarginTripletLoss(margin=0.4)),
    "NegativeCosineLoss": lambda: of_views(losses.NegativeCosineLoss()),
    "BarlowTwinsLoss": lambda: of_views(losses.BarlowTwinsLoss()),
    "VICRegLoss": lambda: of_views(losses.VICRegLoss()),
    "ContrastiveLoss": lambda: of_labels(losses.ContrastiveLoss()),
    "DDMLLoss": lambda: of_labels(losses.DDMLLoss()),
    "TripletMarginLoss": lambda: of_labels(losses.TripletMarginLoss()),
    "TripletMarginLoss, hard": lambda: of_labels(losses.TripletMarginLoss(miner=miners.hard)),
    "NPairLoss": lambda: of_labels(losses.NPairLoss(l2=0.1)),
    "LiftedStructureLoss": lambda: of_labels(losses.LiftedStructureLoss()),
    "AngularLoss": lambda: of_labels(losses.AngularLoss()),
    "NPairAngularLoss": lambda: of_labels(losses.NPairAngularLoss()),
    "FacilityLocationLoss": lambda: of_labels(losses.FacilityLocationLoss()),
    "SoftCrossEntropyLoss": lambda: of_labels(losses.SoftCrossEntropyLoss()),
}


def lightly(name: str, **options: bool) -> Make:
    def make() -> Callable[[Views, Tensor], Tensor]:
        import lightly.loss

        return of_views(getattr(lightly.loss, name)(**options))

    return make


def metric_learning(efficient: bool) -> Make:
    def make() -> Callable[[Views, Tensor], Tensor]:
        from pytorch_metric_learning.losses import NTXentLoss
        from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

        loss = NTXentLoss(0.5)
        first = 0
        if dist.is_initialized() and dist.get_world_size() > 1:
            loss = DistributedLossWrapper(loss, efficient=efficient)
            first = dist.get_rank() * 1000

        def of_pairs(z: Views, labels: Tensor) -> Tensor:
            images = torch.arange(len(z[0])) + first
            return loss(torch.cat(z[:2]), images.repeat(2))

        return of_pairs

    return make


PEERS: dict[str, Make] = {
    "lightly NTXentLoss": lightly("NTXentLoss"),
    "lightly NTXentLoss, gather_distributed": lightly("NTXentLoss", gather_distributed=True),
    "lightly BarlowTwinsLoss, gather_distributed": lightly(
        "BarlowTwinsLoss", gather_distributed=True
    ),
    "lightly VICRegLoss, gather_distributed": lightly("VICRegLoss", gather_distributed=True),
    "pytorch-metric-learning NTXentLoss": metric_learning(False),
    "pytorch-metric-learning NTXentLoss, efficient": metric_learning(True),
}


def step(make: Make, part: slice) -> tuple[float, Tensor]:
    """The value of a loss on this process's part of the batch, and the averaged gradient."""
    torch.manual_seed(0)
    net = nn.Linear(6, 5).double()
    views = torch.randn(3, BATCH, 6, dtype=torch.float64)
    labels = torch.randint(0, 5, (BATCH,))
    value = make()([net(view[part]) for view in views], labels[part])
    value.backward()
    grad = net.weight.grad
    assert grad is not None
    if not dist.is_initialized():
        return value.item(), grad
    dist.all_reduce(grad)
    return value.item(), grad / dist.get_world_size()


def work(rank: int, world: int, file: str, names: list[str], answers: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    torch.set_num_threads(1)
    for (size, kind), sizes in PARTS.items():
        if size != world:
            continue
        start = sum(sizes[:rank])
        for name in names:
            if kind == "unequal" and name in PEERS:
                continue  # their gathers need equal parts
            value, grad = step((OURS | PEERS)[name], slice(start, start + sizes[rank]))
            values = torch.tensor([value], dtype=torch.float64)
            dist.all_reduce(values)
            if rank == 0:
                answers.put((name, f"{world} {kind}", values.item() / world, grad.tolist()))
    dist.barrier()
    dist.destroy_process_group()


def run(world: int, names: list[str]) -> dict[str, dict[str, tuple[float, Tensor]]]:
    """Value and gradient by kind of split and loss."""
    context = mp.get_context("spawn")
    answers = context.SimpleQueue()
    found: dict[str, dict[str, tuple[float, Tensor]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/rendezvous"
        processes = mp.spawn(work, (world, file, names, answers), nprocs=world, join=False)
        while not processes.join(timeout=0.05):
            while not answers.empty():
                name, kind, value, grad = answers.get()
                found.setdefault(kind, {})[name] = value, torch.tensor(grad, dtype=torch.float64)
        while not answers.empty():
            name, kind, value, grad = answers.get()
            found.setdefault(kind, {})[name] = value, torch.tensor(grad, dtype=torch.float64)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    args = parser.parse_args()
    names = [*OURS, *([] if args.without_peers else PEERS)]
    record: dict[str, Any] = provenance("python eval/benchmarks/processes.py")
    whole = {name: step((OURS | PEERS)[name], slice(None)) for name in names}  # without a group
    cells: dict[str, Any] = {name: {} for name in names}
    for world in (1, 2, 4):
        for kind, answers in run(world, names).items():
            for name, (value, grad) in answers.items():
                expected, of_whole = whole[name]
                cells[name][kind] = {
                    "norm": float(grad.norm() / of_whole.norm()),
                    "cosine": float(torch.cosine_similarity(grad.ravel(), of_whole.ravel(), 0)),
                    "value": value / expected,
                }
    record["losses"] = cells
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "processes.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
