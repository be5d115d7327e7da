from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint

from sslkit.data import (
    ArrayDataset,
    BatchOrder,
    ClassBatches,
    DataModule,
    ImageError,
    LabelledImages,
    Splits,
    load,
)
from sslkit.data import decode as files


def write_classes(root, counts, train_and_test=False):
    """A folder of images a class, each image of its own colour, in the first half a train split."""
    shown = []
    for c, n in enumerate(counts):
        for i in range(n):
            for part in ("train/", "test/") if train_and_test else ("",):
                path = root / f"{part}{'abcdefgh'[c]}" / f"{i:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (12, 9), (30 * c, 9 * i, 200 if part == "test/" else 0)).save(path)
            shown.append((30 * c, 9 * i, 0))
    return shown


def module(name, **options):
    data = DataModule(name, **options)
    data.setup("fit")
    return data


def pixels(dataset):
    return [tuple(dataset[i][0][:, 0, 0].tolist()) for i in range(len(dataset))]


@pytest.mark.parametrize(("resident", "kind"), [(True, ArrayDataset), (False, LabelledImages)])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_of_files_is_its_train_split(tmp_path, resident, kind, workers):
    shown = write_classes(tmp_path, (3, 2, 4, 1, 5, 2))[:9]
    options = {"size": 6, "resident": resident, "workers": workers, "batch_size": 3}
    data = module(f"classes:{tmp_path}", **options)
    assert type(data.dataset) is kind
    assert data.dataset.classes == ("a", "b", "c")  # those that it shows
    assert data.dataset.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert data.dataset[0][0].shape == (3, 6, 6)
    assert pixels(data.dataset) == shown
    for batch in data.train_dataloader():
        assert batch.labels.tolist() == data.dataset.labels[batch.index].tolist()
        assert [tuple(x) for x in batch.images[:, :, 0, 0].tolist()] == [
            shown[i] for i in batch.index
        ]


def test_a_folder_is_its_train_split_and_224_pixels_by_default(tmp_path):
    shown = write_classes(tmp_path, (2, 3), train_and_test=True)
    data = module(f"folder:{tmp_path}")
    assert data.dataset.images.shape == (5, 3, 224, 224)
    assert (pixels(data.dataset), data.dataset.classes) == (shown, ("a", "b"))
    # without the colon it is any folder, of whose images none has a label
    bare = module("folder", root=str(tmp_path), size=8)
    assert (len(bare.dataset), bare.dataset.labels, bare.dataset.classes) == (10, None, None)


def test_classes_that_the_train_split_does_not_show_have_no_number(monkeypatch):
    def found(name, **options):
        test = LabelledImages([], torch.tensor([0, 1]), "abcdef")
        train = LabelledImages([Path("x")] * 4, torch.tensor([5, 2, 5, 4]), "abcdef")
        return Splits(train, test, name, "accuracy", None, "")

    monkeypatch.setattr("sslkit.data.training_images.load_splits", found)
    data = module("inshop", resident=False)
    assert (data.dataset.classes, data.dataset.labels.tolist()) == (("c", "e", "f"), [2, 0, 2, 1])
    data = module("inshop", resident=False, limit=2)  # a part of them, and named the same
    assert (data.dataset.classes, data.dataset.labels.tolist()) == (("c", "e", "f"), [2, 0])


def test_limit_takes_the_first(tmp_path):
    shown = write_classes(tmp_path, (3, 4, 1, 1))
    for resident in (True, False):
        data = module(f"classes:{tmp_path}", size=6, limit=4, resident=resident)
        assert pixels(data.dataset) == shown[:4]
        assert data.dataset.labels.tolist() == [0, 0, 0, 1]


def test_small_sets_are_resident_and_large_ones_streamed(tmp_path, monkeypatch):
    write_classes(tmp_path, (2, 2, 2, 2))
    for most, kind in ((4 * 3 * 36, ArrayDataset), (4 * 3 * 36 - 1, LabelledImages)):
        monkeypatch.setattr("sslkit.data.module.RESIDENT_BYTES", most)
        assert type(module(f"classes:{tmp_path}", size=6).dataset) is kind


def test_sets_in_memory_are_as_load_reads_them():
    data = module("shapes", size=16, limit=40, per_class=2, batch_size=8)
    assert torch.equal(data.dataset.images, load("shapes", size=16, limit=40).images)
    (*batches,) = data.train_dataloader()
    assert [len(batch.labels.unique()) for batch in batches] == [4] * 5


@pytest.mark.parametrize("resident", [True, False])
def test_order(tmp_path, resident):
    write_classes(tmp_path, (6, 5, 4, 7, 1, 1, 1, 1))
    options = {"size": 6, "batch_size": 4, "resident": resident, "workers": 0}
    torch.manual_seed(5)
    data = module(f"classes:{tmp_path}", **options)
    order = data.order(1, 2)
    assert type(order) is BatchOrder
    assert list(order) == list(BatchOrder(22, 4, seed=5, rank=1, world_size=2))
    data = module(f"classes:{tmp_path}", per_class=2, **options)
    labels = data.dataset.labels
    for rank in (0, 1):
        order = data.order(rank, 2)
        assert type(order) is ClassBatches
        assert list(order) == list(ClassBatches(labels, 4, 2, seed=5, rank=rank, world_size=2))
    seen = [batch.index.tolist() for batch in data.train_dataloader()]
    assert seen == list(data.order()) == list(ClassBatches(labels, 4, 2, seed=5))


class Seen(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.rows = []

    def training_step(self, batch, _):
        self.rows.append(batch.index.tolist())
        return self.weight * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("resident", [True, False])
def test_a_resumed_run_sees_the_batches_that_were_left(tmp_path, resident):
    def fit(seed, path=None):
        seen, kept = Seen(), tmp_path / "kept"
        trainer = pl.Trainer(
            max_steps=12,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ModelCheckpoint(kept, "{step}", every_n_train_steps=7, save_top_k=-1)],
        )
        torch.manual_seed(seed)
        options = {"size": 6, "batch_size": 4, "per_class": 2, "workers": 0}
        data = DataModule(f"classes:{tmp_path / 'set'}", resident=resident, **options)
        trainer.fit(seen, datamodule=data, ckpt_path=path, weights_only=True)
        return seen.rows

    write_classes(tmp_path / "set", (6, 5, 4, 7, 1, 1, 1, 1))
    whole = fit(3)  # two epochs of 5 batches, and 2 of a third
    assert len({str(rows) for rows in whole}) == 12
    assert fit(4, tmp_path / "kept" / "step=7.ckpt") == whole[7:]


@pytest.mark.parametrize("resident", [True, False])
def test_images_that_are_held_out_come_in_no_batch(tmp_path, resident):
    write_classes(tmp_path, (6, 5, 4, 7, 1, 1, 1, 1))
    options = {"size": 6, "batch_size": 4, "per_class": 2, "resident": resident, "workers": 0}
    rows = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        data = module(f"classes:{tmp_path}", held_out=2, **options)
        held = data.held_out_rows
        assert data.dataset.labels[held].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        batches = list(data.train_dataloader())
        assert len(batches) == len(data.loader) == (22 - 8) // 4
        seen = torch.cat([batch.index for batch in batches])
        assert not set(seen.tolist()) & set(held.tolist())
        rows.append(held.tolist())
    assert rows[0] == rows[1]
    assert module(f"classes:{tmp_path}", **options).held_out_rows.numel() == 0


# what is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"per_class": 1}, "^per_class must be at least 2, not 1$"),
        ({"per_class": 3}, "^batch_size must be a multiple of per_class, 3, not 256$"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"per_class": 2, "held_out": -1}, "^held_out must be at least 0, not -1$"),
        ({"held_out": 2}, "^held_out 2 is so many images of a class: set per_class$"),
    ],
)
def test_numbers_are_checked_at_once(options, says):
    with pytest.raises(ValueError, match=says):
        DataModule("shapes", **options)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        (
            "cifar11",
            {},
            "^unknown data set 'cifar11': choose from cifar10, .*inshop.*hf:PATH; did y",
        ),
        ("classes", {}, "unknown data set 'classes': .*did you mean 'classes:DIR'"),
        ("cub200", {"split": "test"}, "^unknown split of cub200 'test': choose from train$"),
        (
            "voc2007",
            {},
            "^voc2007 has several labels an image, and a run is of sets that have one$",
        ),
        ("folder", {}, "'folder' needs its root"),
        ("classes:.", {"size": 0}, "size must be at least 1, got 0"),
    ],
)
def test_names_and_splits(name, options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says) as error:
        module(name, **options)
    assert "\n" not in str(error.value)


def test_a_set_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^sop is not at .*: get it from https://"):
        module("sop", root=str(tmp_path))


@pytest.mark.parametrize(
    ("counts", "options", "says"),
    [
        ((3, 1, 2, 2), {}, "class 'b' has 1 image, but per_class is 2"),
        ((3, 3, 2, 2), {"batch_size": 6}, "takes 3 classes, but there are 2"),
        ((3, 3, 2, 2), {"limit": 4}, "class 'b' has 1 image, but per_class is 2"),
        ((6, 3, 2, 2), {"held_out": 2}, "class 'b' has 1 image left beside those held out, but"),
    ],
)
def test_a_batch_that_cannot_be_filled_is_refused_before_anything_is_decoded(
    tmp_path, monkeypatch, counts, options, says
):
    write_classes(tmp_path, counts)
    monkeypatch.setattr(files, "decode", lambda *args: pytest.fail("an image was decoded"))
    with pytest.raises(ValueError, match=says):
        module(f"classes:{tmp_path}", size=6, **{"batch_size": 4, "per_class": 2, **options})
    data = module(
        f"classes:{tmp_path}",
        size=6,
        resident=False,
        **{"batch_size": 4, "per_class": 2, **options},
    )
    with pytest.raises(ValueError, match=says):
        data.order()


def test_a_folder_without_labels_has_no_classes_to_draw(tmp_path):
    write_classes(tmp_path, (2, 2))
    for resident in (True, False):
        options = {"size": 6, "batch_size": 4, "resident": resident}
        with pytest.raises(ValueError, match=r"^per_class needs labels, and the data has none$"):
            module("folder", root=str(tmp_path), per_class=2, **options).order()


def test_a_damaged_image_of_a_labelled_set_is_named(tmp_path):
    """In a folder without labels another takes its place; here it would have the wrong label."""
    write_classes(tmp_path, (2, 2, 2, 2))
    (tmp_path / "b" / "01.png").write_bytes(b"junk")
    with pytest.raises(ImageError, match=r"^cannot read the image '.*b/01.png': not an image$"):
        module(f"classes:{tmp_path}", size=6)
    data = module(f"classes:{tmp_path}", size=6, resident=False, workers=2, batch_size=4)
    with pytest.raises(ImageError, match=r"^cannot read the image '.*b/01.png': not an image$"):
        list(data.train_dataloader())


def test_each_image_is_decoded_once(tmp_path, monkeypatch):
    write_classes(tmp_path, (2, 2, 2, 2))
    calls, decode = [], files.decode
    monkeypatch.setattr(files, "decode", lambda *args: calls.append(args[0]) or decode(*args))
    data = module(f"classes:{tmp_path}", size=6, batch_size=2)
    for _ in range(3):
        assert len(list(data.train_dataloader())) == 2
    assert sorted(path.name for path in calls) == ["00.png", "00.png", "01.png", "01.png"]
    assert data.dataset.images.shape == (4, 3, 6, 6)
