import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from sslkit.distributed import all_gather
from sslkit.losses import NTXentLoss, nt_xent


def data():
    torch.manual_seed(0)
    return nn.Linear(6, 4).double(), torch.randn(2, 8, 6, dtype=torch.float64)


def worker(rank, world, address, results):
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    net, views = data()
    mine = views[:, rank * (8 // world) : (rank + 1) * (8 // world)]
    NTXentLoss(temperature=0.5)(net(mine[0]), net(mine[1])).backward()
    dist.all_reduce(net.weight.grad)  # DDP's average
    if rank == 0:
        results.put((net.weight.grad / world).tolist())
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_averaged_gradient_is_that_of_the_whole_batch(world, tmp_path):
    net, views = data()
    nt_xent(net(views[0]), net(views[1]), temperature=0.5).backward()
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    address = f"file://{tmp_path}/rendezvous"
    mp.spawn(worker, (world, address, results), nprocs=world)
    averaged = torch.tensor(results.get(), dtype=torch.float64)
    torch.testing.assert_close(averaged, net.weight.grad)


def test_identity_in_a_single_process():
    x = torch.randn(3, 2)
    assert all_gather(x) is x
