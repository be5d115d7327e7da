import time
from collections import Counter
from itertools import chain, pairwise

import pytest
import torch
from torch.utils.data import Dataset

from sslkit.data import ArrayDataset, BatchOrder, ClassBatches, Loader
from sslkit.data.class_batches import held_out_rows


def labelled(*counts, seed=0):
    """Labels of classes of these sizes, in any order; the numbers of classes have gaps."""
    labels = torch.tensor([3 * c + 1 for c, n in enumerate(counts) for _ in range(n)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


SIZES = [
    ((7,) * 5, 6, 2),  # neither rounds of classes nor those of images end with a batch
    ((4, 9, 30, 5), 8, 4),
    ((2,) * 9, 8, 2),
    ((3, 3), 6, 3),  # every class in every batch
    ((50, 2, 2, 2, 2, 2, 2), 6, 2),
    ((5,) * 7, 35, 5),
]


@pytest.mark.parametrize(("counts", "batch_size", "per_class"), SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_every_batch_is_whole_classes_and_all_come_equally_often(
    counts, batch_size, per_class, seed
):
    labels = labelled(*counts, seed=seed)
    order = ClassBatches(labels, batch_size, per_class, seed=seed)
    assert order.batch_size == batch_size
    assert len(order) == len(BatchOrder(len(labels), batch_size)) == sum(counts) // batch_size
    for epoch in range(4):
        order.set_epoch(epoch)
        classes, images = Counter(), Counter()
        batches = list(order)
        assert len(batches) == len(order)
        for batch in batches:
            assert len(set(batch)) == len(batch) == batch_size
            groups = [batch[i : i + per_class] for i in range(0, batch_size, per_class)]
            found = [set(labels[group].tolist()) for group in groups]
            assert all(len(group) == 1 for group in found)
            assert len(set.union(*found)) == len(groups)
            classes.update(label for group in found for label in group)
            images.update(batch)
            # after any batch, and not at the end of an epoch alone
            assert spread(classes, set(labels.tolist())) <= 1
            for label in classes:
                rows = (labels == label).nonzero()[:, 0].tolist()
                assert spread(images, rows) <= 1
        assert sum(images.values()) == len(order) * batch_size


def spread(counts, keys):
    found = [counts[key] for key in keys]
    return max(found) - min(found)


def test_many_rounds():
    """Every pair of images that a class has meets, and every pair of classes."""
    labels = labelled(*(5,) * 5)
    order, images, classes = ClassBatches(labels, 4, 2), set(), set()
    for epoch in range(40):
        order.set_epoch(epoch)
        for batch in order:
            images |= {frozenset(batch[:2]), frozenset(batch[2:])}
            classes.add(frozenset(labels[batch].tolist()))
    assert len(images) == 5 * 10
    assert len(classes) == 10


def test_an_order_depends_on_seed_and_epoch_alone():
    labels = labelled(*(6,) * 8)
    first = list(ClassBatches(labels, 8, 2, seed=0))
    torch.manual_seed(99)
    order = ClassBatches(labels, 8, 2, seed=0)
    state = torch.get_rng_state()
    assert [list(order), list(order)] == [first, first]
    assert torch.equal(torch.get_rng_state(), state)
    found = [first, list(ClassBatches(labels, 8, 2, seed=1))]
    for epoch in (1, 2):
        order.set_epoch(epoch)
        found.append(list(order))
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    assert all(a != b for a, b in pairwise(first))


@pytest.mark.parametrize("start", [0, 1, 3, 6])
def test_it_resumes_at_any_batch(start):
    labels = labelled(*(6,) * 8)
    whole = list(ClassBatches(labels, 8, 2))
    order = ClassBatches(labels, 8, 2)
    order.start = start
    assert list(order) == whole[start:]
    assert list(order) == whole


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_out_the_batch_of_one(world_size):
    labels = labelled(*(7,) * 13)
    whole = list(ClassBatches(labels, 8 * world_size, 4, seed=3))
    parts = [
        ClassBatches(labels, 8, 4, seed=3, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert {len(part) for part in parts} == {len(whole)}
    together = [list(chain(*batches)) for batches in zip(*parts, strict=True)]
    assert together == whole


class Streamed(Dataset):
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return torch.full((3, 2, 2), i, dtype=torch.uint8), int(self.labels[i])


def resident(labels):
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    return ArrayDataset(images.expand(-1, 3, 2, 2), labels)


@pytest.mark.parametrize("make", [resident, Streamed])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_takes_it_and_resumes_in_mid_epoch(make, workers):
    labels = labelled(*(6,) * 8)
    whole = list(ClassBatches(labels, 8, 2, seed=1))
    loader = Loader(make(labels), ClassBatches(labels, 8, 2, seed=1), workers=workers)
    loader.resume_at(2)
    for expected in (whole[2:], whole):
        batches = list(loader)
        assert [batch.index.tolist() for batch in batches] == expected
        for batch in batches:
            assert batch.images[:, 0, 0, 0].tolist() == batch.index.tolist()
            assert batch.labels.tolist() == labels[batch.index].tolist()


def test_labels_of_any_integers():
    labels = labelled(*(4,) * 4)
    whole = list(ClassBatches(labels, 4, 2))
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert list(ClassBatches(labels.to(dtype), 4, 2)) == whole


@pytest.mark.parametrize("classes", [11_000, 10])
def test_an_epoch_of_60000_images_takes_no_time(classes):
    labels = torch.arange(60_000) % classes
    started = time.process_time()
    order = ClassBatches(labels, 16 if classes == 10 else 128, 2)
    assert sum(map(len, order)) == len(order) * order.batch_size
    assert time.process_time() - started < 5  # 0.3 s where this was written


NAMES = ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize(
    ("labels", "batch_size", "per_class", "world_size", "says"),
    [
        (None, 4, 2, 1, "^per_class needs labels, and the data has none$"),
        ([0, -1, 0, -1], 4, 2, 1, "of at least 0: 2 of 4 images have none, the first is 1$"),
        ([[0, 1], [1, 0]], 4, 2, 1, r"one an image, not int64 \(2, 2\)$"),
        ([0.0, 1.0], 4, 2, 1, r"\(N,\) integers, one an image, not float32 \(2,\)$"),
        ([True, True], 4, 2, 1, r"not bool \(2,\)$"),
        ([0, 0, 1, 1], 4, 1, 1, "^per_class must be at least 2, not 1$"),
        ([0, 0, 1, 1], 4, -2, 1, "^per_class must be at least 2, not -2$"),
        ([0, 0, 1, 1], 3, 2, 1, "^batch_size must be a multiple of per_class, 2, not 3$"),
        ([0, 0, 1, 1], 0, 2, 1, "^batch_size must be at least 1, not 0$"),
        ([0, 0, 1, 1], 6, 2, 1, "takes 3 classes, but there are 2: lower it"),
        ([], 4, 2, 1, "takes 2 classes, but there are 0: lower it"),
        ([0, 0, 1, 1], 2, 2, 1, "2 classes or more, not one: raise batch_size, 2$"),
        (
            [0, 0, 0, 1, 1, 1],
            6,
            2,
            1,
            "^batch_size 6 with 2 images a class on 1 .* takes 3 classes, but there are 2: lower",
        ),
        ([0, 0, 1, 1, 0, 0, 1, 1], 4, 2, 2, "on 2 process.* takes 4 classes, but there are 2:"),
        (
            [0, 0, 1, 2, 2, 3],
            4,
            2,
            1,
            "^class 'bee' has 1 image, but per_class is 2, one of 2 such: lower ",
        ),
        ([0, 0, 0, 3, 3], 6, 3, 1, "^class 'dog' has 2 images, but per_class is 3, one of 1 such:"),
    ],
)
def test_bad_input(labels, batch_size, per_class, world_size, says):
    given = None if labels is None else torch.tensor(labels)
    given = given.long() if labels == [] else given
    with pytest.raises(ValueError, match=says) as error:
        ClassBatches(given, batch_size, per_class, classes=NAMES, world_size=world_size)
    assert "\n" not in str(error.value)


def test_a_class_without_a_name_is_its_number():
    with pytest.raises(ValueError, match=r"^class 4 has 1 image, but"):
        ClassBatches(labelled(3, 1, 3), 4, 2)


# classes that a policy chooses, and images that are held out


def chosen(labels, batch_size, per_class, choose, **options):
    order = ClassBatches(labels, batch_size, per_class, **options)
    order.choose = choose
    return order


def at_random(labels):
    """Any other classes, and what it was asked."""
    asked = []

    def choose(seeds, how_many, generator):
        others = [c for c in sorted(set(labels.tolist())) if c not in seeds]
        asked.append((seeds, how_many))
        return [others[i] for i in torch.randperm(len(others), generator=generator)[:how_many]]

    return choose, asked


@pytest.mark.parametrize(("counts", "batch_size", "per_class"), SIZES)
def test_a_quarter_of_the_classes_comes_in_rounds_and_the_others_are_chosen(
    counts, batch_size, per_class
):
    labels = labelled(*counts)
    choose, asked = at_random(labels)
    order = chosen(labels, batch_size, per_class, choose)
    classes = batch_size // per_class
    few = max(1, classes // 4)
    met = Counter()
    for epoch in range(3):
        order.set_epoch(epoch)
        asked.clear()
        batches = list(order)
        assert len(batches) == len(order) == len(asked)
        met = Counter()
        for batch, (seeds, how_many) in zip(batches, asked, strict=True):
            found = labels[batch].view(-1, per_class)
            assert (found == found[:, :1]).all()
            assert len(set(batch)) == batch_size
            assert len(set(found[:, 0].tolist())) == classes
            assert (found[:few, 0].tolist(), how_many) == (seeds, classes - few)
            met.update(seeds)
            assert spread(met, set(labels.tolist())) <= 1


@pytest.mark.parametrize("start", [1, 3])
def test_chosen_batches_resume_where_the_choice_is_the_same(start):
    labels = labelled(*(7,) * 9)
    order = chosen(labels, 8, 2, at_random(labels)[0], seed=5)
    order.set_epoch(2)
    whole = list(order)
    order.start = start
    assert list(order) == whole[start:]
    order.set_epoch(3)
    assert list(order) != whole


def test_the_images_do_not_depend_on_how_the_classes_were_chosen():
    labels = labelled(*(7,) * 9)
    choose, _ = at_random(labels)
    plain = chosen(labels, 8, 2, choose)
    drawn = list(plain)

    def wasteful(seeds, how_many, generator):
        picked = choose(seeds, how_many, generator)
        torch.rand(5, generator=generator)
        torch.rand(5)
        return picked

    assert list(chosen(labels, 8, 2, wasteful)) == drawn


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda seeds, others: others[:2] + others[:1],
        lambda seeds, others: others[:2] + seeds,
        lambda seeds, others: others[:2],
        lambda seeds, others: [*others, 2],
        lambda seeds, others: [*others[:2], 2],
    ],
)
def test_a_choice_that_is_no_batch_is_refused(spoilt):
    labels = labelled(*(4,) * 4)

    def choose(seeds, *_):
        return spoilt(seeds, [label for label in (1, 4, 7, 10) if label not in seeds])

    with pytest.raises(ValueError, match=r"3 different classes .*none of the seeds \[\d+\], not"):
        list(chosen(labels, 8, 2, choose))


def test_classes_are_chosen_on_one_process():
    labels = labelled(*(4,) * 8)
    order = chosen(labels, 8, 2, at_random(labels)[0], world_size=2)
    with pytest.raises(ValueError, match="on one process, not on 2"):
        list(order)


@pytest.mark.parametrize("choosing", [False, True])
def test_rows_that_are_held_out_come_in_no_batch(choosing):
    labels = labelled(4, 9, 6, 5, seed=1)
    held = held_out_rows(labels, 2)
    assert labels[held].tolist() == [1, 1, 4, 4, 7, 7, 10, 10]
    order = ClassBatches(labels, 4, 2, held_out=held)
    order.choose = at_random(labels)[0] if choosing else None
    assert len(order) == (24 - 8) // 4
    rows = set()
    for epoch in range(60):
        order.set_epoch(epoch)
        rows |= set(chain(*order))
    assert rows == set(range(24)) - set(held.tolist())


def test_which_rows_are_held_out():
    labels = labelled(4, 9, 30, 5)
    assert torch.equal(held_out_rows(labels, 3), held_out_rows(labels, 3))
    assert held_out_rows(labels, 0).numel() == 0
    assert len(set(held_out_rows(labels, 5).tolist())) == 4 + 5 + 5 + 5
    nested = [set(held_out_rows(labels, n).tolist()) for n in range(4)]
    assert all(a < b for a, b in pairwise(nested))


@pytest.mark.parametrize(("held_out", "left"), [(2, "1 image"), (3, "0 images")])
def test_a_class_of_which_too_few_are_left(held_out, left):
    labels = labelled(5, 3, 5)
    says = f"^class 4 has {left} left beside those held out, but per_class is 2.*lower held_out or"
    with pytest.raises(ValueError, match=says):
        ClassBatches(labels, 4, 2, held_out=held_out_rows(labels, held_out))
