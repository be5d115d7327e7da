"""Features over two processes, held against those of one, bit for bit.

`python tests/evaluation/test_processes.py FOLDER` is the two processes.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import Dataset, TensorDataset

from sslkit.backbones import ResNet9
from sslkit.data import ArrayDataset
from sslkit.evaluation import Features, extract, extract_layers
from sslkit.evaluation.cache import cached_features
from sslkit.evaluation.processes import largest, share, together
from sslkit.views import EvaluationView

LAYERS = ["stem", "stage3"]
VIEW = EvaluationView(8)


def network():
    torch.manual_seed(0)
    net = ResNet9(2)
    for name, statistic in net.named_buffers():  # as a pass would set them, at any thread count
        if "running" in name:
            statistic.uniform_(0.5, 2)
    return net


def data(n):
    generator = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, 3, 8, 8), generator=generator).byte()
    return ArrayDataset(images, torch.arange(n))


class Damaged(Dataset):
    """Whose image 65, in the part of the second process, cannot be read."""

    fingerprint = "damaged"

    def __len__(self):
        return 70

    def __getitem__(self, i):
        if i == 65:
            raise ValueError(f"cannot read the image '{i}.png': é")
        return data(70).images[i], i


def several(n):
    return TensorDataset(data(n).images, torch.arange(5 * n).reshape(n, 5))


def fault(extraction):
    try:
        extraction()
    except ValueError as error:
        return str(error)
    return None


def found(folder, distributed):
    """Every kind of extraction, as tensors and texts; the files of ``folder`` stay."""
    net, options = network(), {"distributed": distributed}
    results = {}
    for n in (70, 5):  # 64 and 6 rows, 5 and none
        results[f"{n} rows"] = extract(net, data(n), VIEW, **options)
        results[f"{n} rows, several labels"] = extract(net, several(n), VIEW, **options)
        layers = extract_layers(net, data(n), VIEW, LAYERS, **options)
        results |= {f"{n} rows of {name}": part for name, part in layers.items()}
        for again in ("", " again"):
            kept = cached_features(folder, net, data(n), VIEW, layers=LAYERS, **options)
            results |= {f"{n} rows of {k}, kept{again}": part for k, part in kept.items()}
            results[f"{n} rows, kept{again}"] = cached_features(
                folder, net, data(n), VIEW, **options
            )[""]
    into = Features(torch.zeros(70, 16), torch.zeros(70, dtype=torch.int64))
    results["into"] = extract(net, data(70), VIEW, into=into, **options)
    modes = {part.training for part in net.modules()}
    tensors = {k: tuple(t.clone() for t in part) for k, part in results.items()}
    broken = {
        "damaged": fault(lambda: extract(net, Damaged(), VIEW, workers=0, **options)),
        "damaged, kept": fault(
            lambda: cached_features(folder, net, Damaged(), VIEW, workers=0, **options)
        ),
        "no folder": fault(lambda: nothing_there(folder, net, options)),
    }
    return {"tensors": tensors, "broken": broken, "modes": list(modes)}


def nothing_there(folder, net, options):
    """Only the first process can fail here: the others have not looked yet."""
    (folder / "file").touch()
    try:
        cached_features(folder / "file" / "x", net, data(5), VIEW, **options)
    except OSError as error:
        raise ValueError(f"OSError {error}") from error


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes found, and the folder of their files."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)], folder


def test_both_have_the_whole_and_it_is_that_of_one_process(two, tmp_path):
    (first, second), _ = two
    alone = found(tmp_path, False)["tensors"]
    assert first["tensors"].keys() == second["tensors"].keys() == alone.keys()
    for name, expected in alone.items():
        own = [part["tensors"][name] for part in (first, second)]
        if name == "into":  # where each has its own memory, each has its own rows
            own = [(torch.cat([a[:64], b[64:]]),) * 2 for a, b in zip(*own, strict=True)]
            own = [[part[0] for part in own]]
        for each in own:
            for tensor, other in zip(each, expected, strict=True):
                assert torch.equal(tensor, other), name


def test_an_error_in_one_ends_both_and_nothing_of_it_is_kept(two):
    (first, second), folder = two
    for kind in ("damaged", "damaged, kept"):
        assert second["broken"][kind] == "cannot read the image '65.png': é"
        assert first["broken"][kind] == f"process 2 of 2 failed: {second['broken'][kind]}"
    assert first["broken"]["no folder"].startswith("OSError ")
    assert second["broken"]["no folder"].startswith("process 1 of 2 failed: ")
    assert not list(folder.glob("*.part"))
    assert len(list(folder.glob("*.json"))) == 4
    assert first["modes"] == second["modes"] == [True]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 64, 70, 257, 1000])
def test_shares_are_whole_blocks_and_make_the_whole(monkeypatch, n, world):
    monkeypatch.setattr("sslkit.evaluation.processes.world_size", lambda: world)
    parts = [share(n, 32, process) for process in range(world)]
    assert [i for part in parts for i in part] == list(range(n))
    assert parts[0]
    assert all(part.start % 32 == 0 for part in parts if part)
    # No process has a block more than it must.
    assert max(math.ceil(len(part) / 32) for part in parts) == math.ceil(math.ceil(n / 32) / world)


def test_alone_nothing_is_exchanged():
    assert largest(3, 1) == [3, 1]
    with pytest.raises(KeyError), together():
        raise KeyError
    with pytest.raises(OSError, match=r"^why$"), together():
        raise OSError("why")


def work(rank, folder):
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    torch.save(found(folder, True), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    # Forked, and before any gradient: what was imported is not imported again.
    mp.start_processes(work, (Path(sys.argv[1]),), nprocs=2, start_method="fork")
