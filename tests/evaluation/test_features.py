import math
import os

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from sslkit.backbones import Embedder, ResNet, ResNet9
from sslkit.data import ArrayDataset
from sslkit.evaluation import Features, extract, extract_layers
from sslkit.evaluation.batches import _workers, in_order
from sslkit.views import EvaluationView


def images(n, size=8):
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator).byte()


def trained(backbone, size):
    """With BatchNorm statistics that are not those of a fresh network."""
    with torch.no_grad():
        backbone.train()(torch.randn(8, 3, size, size))
    return backbone


class Files(Dataset):
    """Images decoded when asked for, some of which cannot be."""

    def __init__(self, n, bad=(), error=ValueError):
        self.images, self.bad, self.error = images(n), bad, error

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if i in self.bad:
            raise self.error(f"cannot read the image '{i}.png': not an image")
        return self.images[i], i


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("make", [lambda: ResNet9(2), ResNet], ids=["ResNet9", "ResNet-18"])
def test_features_are_the_same_bits_at_any_batch_size(make, channels_last):
    size = 8
    backbone = trained(make(), size)
    if channels_last:
        backbone = backbone.to(memory_format=torch.channels_last)
    data, view = ArrayDataset(images(70, size), torch.arange(70)), EvaluationView(size)
    found = [extract(backbone, data, view, batch_size=b).features for b in (1, 7, 64, 256)]
    assert all(torch.equal(found[0], other) for other in found[1:])
    plain = torch.cat([backbone.eval()(view(part)).detach() for part in data.images.split(35)])
    assert (found[0] - plain).norm(dim=1).div(plain.norm(dim=1)).max() < 3e-6


def test_the_backbone_always_sees_whole_blocks_of_real_images():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return x.flatten(1).float()

    extract(Spy(), ArrayDataset(images(37)), nn.Identity(), batch_size=5)
    assert [len(block) for block in seen] == [32, 32]
    assert torch.equal(seen[1][4:].byte(), images(37)[-1:].expand(28, -1, -1, -1))


def test_every_kind_of_data_set_gives_the_same():
    x, labels, view = images(40), torch.arange(40), EvaluationView(8)
    backbone = trained(ResNet9(2), 8)
    whole = extract(backbone, ArrayDataset(x, labels), view)
    for data, workers in ((Files(40), 0), (Files(40), 2), (TensorDataset(x, labels), None)):
        found = extract(backbone, data, view, workers=workers, batch_size=1)
        assert all(torch.equal(*pair) for pair in zip(found, whole, strict=True))
    unlabelled = extract(backbone, ArrayDataset(x), view)
    assert unlabelled.labels.tolist() == [-1] * 40


def test_labels_may_be_of_several_classes():
    labels = torch.randint(-1, 2, (40, 5))
    found = extract(nn.Flatten(), TensorDataset(images(40), labels), nn.Identity())
    assert torch.equal(found.labels, labels)
    assert found.labels.dtype == torch.int64


def test_weights_statistics_modes_and_random_state_stay():
    backbone = trained(ResNet9(2), 8)
    backbone.stage1.eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [part.training for part in backbone.modules()]
    state = torch.get_rng_state()
    extract(backbone, Files(40), EvaluationView(8), workers=1)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match=r"cannot read the image '3\.png'"):
        extract(backbone, Files(40, bad=(3,)), EvaluationView(8), workers=0)
    assert [part.training for part in backbone.modules()] == modes
    after = backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert len(set(modes)) == 2


@pytest.mark.parametrize("error", [ValueError, OSError])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_worker_is_the_data_sets_own_line(workers, error):
    data = Files(40, bad=(33, 35), error=error)
    with pytest.raises(error) as caught:
        extract(nn.Flatten(), data, nn.Identity(), workers=workers, batch_size=32)
    assert str(caught.value) == "cannot read the image '33.png': not an image"


def test_a_bug_in_a_data_set_keeps_its_traceback():
    with pytest.raises(TypeError, match="Original Traceback"):
        extract(nn.Flatten(), Files(4, bad=(3,), error=TypeError), nn.Identity(), workers=1)


def test_workers_are_one_a_core_for_what_is_decoded(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert _workers(Files(2), 100) == _workers(Subset(Files(2), [0]), 100) == 8
    assert _workers(Files(2), 3) == 3  # a worker has a batch at least
    assert _workers(ArrayDataset(images(2)), 100) == 0
    assert _workers(Subset(TensorDataset(images(2)), [1]), 100) == 0


def test_batches_are_in_order_and_of_the_rows_asked_for():
    for data in (Files(40), ArrayDataset(images(40), torch.arange(40))):
        batches = list(in_order(data, range(7, 40), 10))
        assert [at for at, _, _ in batches] == [7, 17, 27, 37]
        assert torch.cat([labels for _, _, labels in batches]).tolist() == list(range(7, 40))
        assert torch.equal(torch.cat([x for _, x, _ in batches]), images(40)[7:])


def test_it_is_written_to_what_is_given():
    into = Features(torch.full((40, 192), math.nan), torch.zeros(40, dtype=torch.int64))
    data = ArrayDataset(images(40), torch.arange(40))
    assert extract(nn.Flatten(), data, EvaluationView(8), into=into) is into
    assert torch.equal(into.features, EvaluationView(8)(data.images).flatten(1))
    assert into.labels.tolist() == list(range(40))


def test_layers_under_an_embedding_are_the_backbones():
    torch.manual_seed(0)
    backbone, data = ResNet9(4), ArrayDataset(images(5), torch.arange(5))
    plain, embedded = (
        extract_layers(b, data, EvaluationView(8), backbone.layers)
        for b in (backbone, Embedder(backbone, 3))
    )
    for name in backbone.layers:
        assert torch.equal(plain[name].features, embedded[name].features)


def test_layers_are_split_as_they_were_pooled():
    backbone, view = trained(ResNet9(2), 8), EvaluationView(8)
    data = ArrayDataset(images(40), torch.arange(40))
    found = extract_layers(backbone, data, view, ["stage3", "stem"])
    for name, (features, labels) in found.items():
        assert torch.equal(features, extract_layers(backbone, data, view, [name])[name].features)
        assert labels.tolist() == list(range(40))


def test_autocast_around_it_changes_nothing():
    data, view = ArrayDataset(images(4)), EvaluationView(8)
    backbone = trained(ResNet9(2), 8)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = extract(backbone, data, view).features
    assert torch.equal(mixed, extract(backbone, data, view).features)


def test_bad_input_is_one_line():
    with pytest.raises(ValueError, match="1 image or more, and a batch of them: 0, 256"):
        extract(nn.Flatten(), ArrayDataset(images(0)), nn.Identity())
    with pytest.raises(ValueError, match="name a layer or more, of stem, stage1"):
        extract_layers(ResNet9(2), ArrayDataset(images(4)), EvaluationView(8), [])
    with pytest.raises(ValueError, match="4, 0"):
        extract(nn.Flatten(), ArrayDataset(images(4)), nn.Identity(), batch_size=0)

    class Late(nn.Module):
        def forward(self, x):
            return x.flatten(1).masked_fill(x.flatten(1) == 7, math.inf)

    x = torch.zeros(40, 3, 4, 4, dtype=torch.uint8)
    x[39] = 7
    with pytest.raises(ValueError, match="NaN or infinity"):
        extract(Late(), ArrayDataset(x), lambda x: x.float())


def test_a_progress_bar_is_only_drawn_when_asked_for(capsys):
    extract(nn.Flatten(), ArrayDataset(images(4)), nn.Identity())
    assert capsys.readouterr().err == ""
