import pytest
import torch
from torch.utils.data import Dataset

from sslkit.data import ArrayDataset, BatchOrder, Loader


class Streamed(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return torch.full((3, 2, 2), i, dtype=torch.uint8), i % 2


def resident(n):
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    return ArrayDataset(images, torch.arange(n) % 2, ("a", "b"))


def rows(loader):
    return [batch.index.tolist() for batch in loader]


def test_an_epoch_is_a_permutation_in_whole_batches():
    order = BatchOrder(11, 3, seed=5)
    batches = list(order)
    assert len(batches) == len(order) == 3
    assert len({row for batch in batches for row in batch}) == 9


def test_order_depends_on_seed_and_epoch():
    orders = [BatchOrder(50, 50, seed=0), BatchOrder(50, 50, seed=1), BatchOrder(50, 50, seed=0)]
    orders[2].set_epoch(1)
    first, other_seed, other_epoch = (list(order) for order in orders)
    assert first != other_seed
    assert first != other_epoch
    assert first == list(BatchOrder(50, 50, seed=0))


def test_processes_share_out_the_order_of_one():
    whole = list(BatchOrder(24, 8, seed=3))
    parts = [list(BatchOrder(24, 4, seed=3, rank=r, world_size=2)) for r in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize("make", [resident, Streamed])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_the_rows_they_name(make, workers):
    for batch in Loader(make(10), BatchOrder(10, 4), workers=workers):
        assert batch.images[:, 0, 0, 0].tolist() == batch.index.tolist()
        assert batch.labels.tolist() == [i % 2 for i in batch.index.tolist()]


@pytest.mark.parametrize("make", [resident, Streamed])
@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_in_mid_epoch(make, workers):
    loader = Loader(make(10), BatchOrder(10, 2, seed=1), workers=workers)
    iterator = iter(loader)
    head = [next(iterator).index.tolist() for _ in range(2)]
    again = Loader(make(10), BatchOrder(10, 2, seed=1), workers=workers)
    again.resume_at(loader.position)
    whole = rows(Loader(make(10), BatchOrder(10, 2, seed=1)))
    assert head + rows(again) == whole
    assert rows(again) == whole  # and the epoch after it is a full one


@pytest.mark.parametrize(
    ("n", "size", "world", "message"),
    [(4, 0, 1, "at least 1, not 0"), (4, 5, 1, "more than the 4"), (4, 3, 2, "2 process")],
)
def test_bad_input(n, size, world, message):
    with pytest.raises(ValueError, match=message):
        BatchOrder(n, size, world_size=world)


@pytest.mark.parametrize("data", [resident(20), Streamed(20)])
def test_an_epoch_that_is_cut_short_is_followed_by_a_whole_one(data):
    loader = Loader(data, BatchOrder(20, 2))
    for _, _ in zip(range(4), loader, strict=False):
        pass
    assert loader.position == 4
    assert len(rows(loader)) == 10
    loader.resume_at(4)
    assert len(rows(loader)) == 6
    assert len(rows(loader)) == 10
