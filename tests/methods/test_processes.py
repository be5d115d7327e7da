"""Queue, bank and gradient over two processes, held against one process with the whole batch.

`python tests/methods/test_processes.py FOLDER` is the two processes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sslkit.backbones import Backbone, ResNet9
from sslkit.data import load
from sslkit.methods.base import Batch
from sslkit.methods.instance_discrimination import InstanceDiscrimination
from sslkit.methods.moco import MoCo
from sslkit.views import InstDiscView, SimCLRViews

IMAGES, STEPS, SIDE = 8, 3, 16


class Plain(Backbone):
    """Without BatchNorm, which several processes have each of their own."""

    feature_dim = 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8)

    def feature_map(self, images):
        return self.conv(images)

    def init_args(self):
        return {}


def moco():
    """With BatchNorm: two groups in one process are one group on each of two."""
    view = SimCLRViews(SIDE, normalize="half")
    return MoCo(ResNet9(2), view, queue_size=16, projection_dim=5, momentum=0.5, splits=2)


def instance_discrimination(**options):
    return InstanceDiscrimination(Plain(), InstDiscView(SIDE), projection_dim=5, **options)


METHODS = {
    "MoCo": moco,
    "softmax": lambda: instance_discrimination(proximal=0.5),
    "NCE": lambda: instance_discrimination(negatives=6),
}


class Step(nn.Module):
    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, batch):
        return self.method.objective(batch)["loss"]


def trained(name, rank=0, processes=1):
    """Three steps on this process's part of each batch: what is kept, and the first gradient."""
    torch.manual_seed(0)
    method = METHODS[name]()
    part = IMAGES // processes
    method.prepare(load("shapes", "train", limit=2 * IMAGES), part, processes)
    step = Step(method)
    step = DistributedDataParallel(step) if processes > 1 else step
    learnt = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learnt, 0.1)
    own = slice(rank * part, (rank + 1) * part)
    found = {}
    for number in range(STEPS):
        generator = torch.Generator().manual_seed(number)
        views = torch.randn(method.n_views, IMAGES, 3, SIDE, SIDE, generator=generator)
        index = torch.randperm(2 * IMAGES, generator=generator)[:IMAGES]
        torch.manual_seed(100 * rank + number)  # as in training, processes draw different numbers
        optimizer.zero_grad()
        step(Batch(tuple(views[:, own]), None, None, index[own])).backward()
        if not number:
            found = {f"gradient {i}": p.grad.clone() for i, p in enumerate(learnt)}
            found |= {"log_z": method.log_z.clone()} if name == "NCE" else {}
        optimizer.step()
    kept = ("queue", "pointer", "bank", "momentum_projector.2.weight", "projector.weight")
    return found | {k: v for k, v in method.state_dict().items() if k in kept}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes found, by method."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", METHODS)
def test_both_processes_keep_the_same(two, name):
    first, second = (found[name] for found in two)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize("name", ["MoCo", "softmax"])
def test_it_is_what_one_process_with_the_whole_batch_keeps(two, name):
    alone = trained(name)
    assert alone.keys() == two[0][name].keys()
    for key, value in alone.items():
        torch.testing.assert_close(two[0][name][key], value, atol=1e-5, rtol=1e-4, msg=key)


def work(rank, folder):
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    torch.save({name: trained(name, rank, 2) for name in METHODS}, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    # Forked, and before any gradient: what was imported is not imported again.
    mp.start_processes(work, (Path(sys.argv[1]),), nprocs=2, start_method="fork")
