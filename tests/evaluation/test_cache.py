import errno
import json
import multiprocessing
import os
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from sslkit.backbones import ResNet9
from sslkit.data import ArrayDataset
from sslkit.evaluation import extract, extract_layers
from sslkit.evaluation.cache import cached_features
from sslkit.evaluation.feature_files import FeatureFiles
from sslkit.views import EvaluationView

VIEW = EvaluationView(8)
DATA = ArrayDataset(
    torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte(),
    torch.arange(40),
)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ResNet9(2)


@pytest.fixture
def extractions(monkeypatch):
    """How often the network was called for blocks of images."""
    calls = []
    forward = ResNet9.feature_maps
    monkeypatch.setattr(
        ResNet9, "feature_maps", lambda self, x: calls.append(len(x)) or forward(self, x)
    )
    return calls


def same(found, expected):
    return all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def names(folder):
    return sorted(path.name.partition(".")[2] for path in folder.iterdir() if path.name[0] != ".")


def test_extracted_once_and_then_read(net, extractions, tmp_path):
    expected = extract(net, DATA, VIEW)
    extractions.clear()
    about = {"data": "noise", "split": "train"}
    first = cached_features(tmp_path / "new" / "folder", net, DATA, VIEW, about=about)
    assert extractions == [32] * 3  # one block to see how wide features are, then the two
    again = cached_features(tmp_path / "new" / "folder", net, DATA, VIEW, about=about)
    assert len(extractions) == 3
    assert [*first] == [*again] == [""]
    assert same(first[""], expected)
    assert same(again[""], expected)
    folder = tmp_path / "new" / "folder"
    assert names(folder) == ["json", "labels.npy", "npy"]
    (card,) = (json.loads(path.read_text()) for path in folder.glob("*.json"))
    assert card["data"] == "noise"
    assert card["backbone"]["init_args"] == {"width": 2}
    assert card["features"]["shape"] == [40, 16]
    (array,) = (np.load(path) for path in folder.glob("*[0-9a-f].npy") if "labels" not in path.name)
    assert array.dtype == np.float32
    assert np.array_equal(array, expected.features.numpy())


def test_layers_are_one_pass_and_one_file(net, extractions, tmp_path):
    layers = ["stage3", "stem"]
    expected = extract_layers(net, DATA, VIEW, layers)
    extractions.clear()
    for _ in range(2):
        found = cached_features(tmp_path, net, DATA, VIEW, layers=layers)
        assert [*found] == layers
        assert all(same(found[name], expected[name]) for name in layers)
    assert len(extractions) == 3
    assert names(tmp_path) == ["json", "labels.npy", "npy"]
    with pytest.raises(ValueError, match="ResNet9 has no layer 'layer4'"):
        cached_features(tmp_path, net, DATA, VIEW, layers=["layer4"])


def test_other_weights_are_other_features(net, tmp_path):
    before = cached_features(tmp_path, net, DATA, VIEW)[""]
    kept = before.features.clone()
    with torch.no_grad():
        net.stage3[0][0].weight.mul_(2)
    after = cached_features(tmp_path, net, DATA, VIEW)[""]
    assert same(after, extract(net, DATA, VIEW))
    assert torch.equal(before.features, kept)
    assert not torch.equal(after.features, kept)


def test_what_is_changed_in_memory_stays_there(net, tmp_path):
    first = cached_features(tmp_path, net, DATA, VIEW)[""]
    first.features.zero_()
    first.labels.zero_()
    assert same(cached_features(tmp_path, net, DATA, VIEW)[""], extract(net, DATA, VIEW))


def test_labels_of_several_classes(net, tmp_path):
    class Several(Dataset):
        fingerprint = "one"
        labels = torch.randint(-1, 2, (40, 5))

        def __len__(self):
            return 40

        def __getitem__(self, i):
            return DATA.images[i], self.labels[i]

    for _ in range(2):
        found = cached_features(tmp_path, net, Several(), VIEW, workers=0)[""]
        assert torch.equal(found.labels, Several.labels)
        assert torch.equal(found.features, extract(net, DATA, VIEW).features)


def test_without_a_folder_or_a_fingerprint_nothing_is_kept(net, tmp_path, caplog):
    class Bare(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return DATA[i]

    expected = extract(net, DATA, VIEW)
    assert same(cached_features(None, net, DATA, VIEW)[""], expected)
    layers = cached_features(None, net, DATA, VIEW, layers=["stage3"])
    assert torch.equal(layers["stage3"].features, expected.features)
    assert not caplog.messages
    assert same(cached_features(tmp_path, net, Bare(), VIEW, workers=0)[""], expected)
    assert caplog.messages == [
        "features are not cached: a Bare has neither paths nor a fingerprint of its images"
    ]
    assert not list(tmp_path.iterdir())


def damage(path, content):
    return path.write_bytes(content(path.read_bytes()))


@pytest.mark.parametrize("kind", ["", "labels."])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (lambda whole: whole[:-1], r"expected \w+ \(40,.*\), [\d,]+ bytes, found [\d,]+ bytes;"),
        (lambda whole: b"", "found 0 bytes;"),
        (lambda whole: whole + b"\0", r"found [\d,]+ bytes;"),
        (lambda whole: bytes(len(whole)), "found something else;"),
        (lambda whole: b"PK\3\4" + whole[4:], "found something else;"),
        (lambda whole: whole.replace(b"(40", b"(20"), r"found \w+ \(20"),
        (lambda whole: whole.replace(b"<f4", b"<i4").replace(b"<i8", b"<f8"), r"found \w+ \(40"),
    ],
)
def test_a_damaged_file_is_named_and_can_be_removed(net, tmp_path, kind, content, found):
    expected = extract(net, DATA, VIEW)
    cached_features(tmp_path, net, DATA, VIEW)
    (card,) = tmp_path.glob("*.json")
    path = card.with_suffix(f".{kind}npy")
    damage(path, content)
    with pytest.raises(ValueError, match=found) as caught:
        cached_features(tmp_path, net, DATA, VIEW)
    text = str(caught.value)
    assert text.startswith(f"{path} is cut short or another file: expected ")
    assert text.endswith("; remove it and it is extracted anew")
    assert "\n" not in text
    path.unlink()
    assert same(cached_features(tmp_path, net, DATA, VIEW)[""], expected)
    assert same(cached_features(tmp_path, net, DATA, VIEW)[""], expected)


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe", b"[]", b"{}", b'{"format": "sslkit features 0"}', b"null"]
)
def test_a_damaged_json_too(net, tmp_path, content):
    cached_features(tmp_path, net, DATA, VIEW)
    (card,) = tmp_path.glob("*.json")
    card.write_bytes(content)
    with pytest.raises(ValueError, match=r"\.json does not say what features these are: .*remove"):
        cached_features(tmp_path, net, DATA, VIEW)
    card.unlink()
    assert same(cached_features(tmp_path, net, DATA, VIEW)[""], extract(net, DATA, VIEW))


def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["before", "while"])
def test_a_full_disk_leaves_what_was_there(net, tmp_path, monkeypatch, where):
    finished = cached_features(tmp_path, net, DATA, VIEW)[""]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = EvaluationView(8, "half")
    with monkeypatch.context() as patch:
        if where == "before":
            usage = shutil.disk_usage(tmp_path)._replace(free=1000)
            patch.setattr(shutil, "disk_usage", lambda path: usage)
        else:
            patch.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(OSError, match=r"features need 6[\d,]+ bytes at .*, where") as caught:
            cached_features(tmp_path, net, DATA, other)
    assert caught.value.errno == errno.ENOSPC
    assert "\n" not in str(caught.value)
    assert before.items() <= {p.name: p.read_bytes() for p in tmp_path.iterdir()}.items()
    assert not list(tmp_path.glob("*.part"))
    assert len(list(tmp_path.glob("*.json"))) == 1
    assert same(cached_features(tmp_path, net, DATA, VIEW)[""], finished)
    assert same(cached_features(tmp_path, net, DATA, other)[""], extract(net, DATA, other))


def test_files_have_their_blocks_before_they_are_written_to(net, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # as on macOS
    found = cached_features(tmp_path, net, DATA, VIEW)[""]
    assert same(found, extract(net, DATA, VIEW))
    files = FeatureFiles(tmp_path, "key")
    files.create(3_000, found, {"": 16}, {})
    for path in tmp_path.glob("key*.npy.part"):
        assert path.stat().st_blocks * 512 >= path.stat().st_size > 3_000 * 8


def test_an_error_on_the_way_leaves_no_part(net, tmp_path, monkeypatch):
    with torch.no_grad():
        net.stem[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        cached_features(tmp_path, net, DATA, VIEW)
    with torch.no_grad():
        net.stem[0].weight[0, 0, 0, 0] = 1

    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FeatureFiles, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            cached_features(tmp_path, net, DATA, VIEW)
    assert not [path for path in tmp_path.iterdir() if path.name[0] != "."]
    assert same(cached_features(tmp_path, net, DATA, VIEW)[""], extract(net, DATA, VIEW))


@pytest.mark.parametrize("done", [0, 1, 2])
def test_the_json_comes_last(net, tmp_path, monkeypatch, done):
    moves, replace = [], os.replace

    def stops(source, target):
        if len(moves) == done:
            raise OSError(errno.EIO, "Input/output error")
        moves.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stops)
        with pytest.raises(OSError, match="Input/output error"):
            cached_features(tmp_path, net, DATA, VIEW)
    assert len(names(tmp_path)) == done
    assert "json" not in names(tmp_path)
    assert same(cached_features(tmp_path, net, DATA, VIEW)[""], extract(net, DATA, VIEW))


def test_what_a_killed_process_left_is_written_over(net, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(FeatureFiles, "finish", lambda self: None)
        patch.setattr(FeatureFiles, "discard", lambda self: None)
        with pytest.raises(FileNotFoundError, match="was it removed meanwhile"):
            cached_features(tmp_path, net, DATA, VIEW)
    assert names(tmp_path) == ["json.part", "labels.npy.part", "npy.part"]
    (part,) = tmp_path.glob("*.json.part")
    part.with_name(part.name.replace("json.part", "npy")).write_bytes(b"stray")  # no JSON: not read
    assert same(cached_features(tmp_path, net, DATA, VIEW)[""], extract(net, DATA, VIEW))
    assert names(tmp_path) == ["json", "labels.npy", "npy"]


def at_once(folder, line, results):
    torch.set_num_threads(1)  # a forked process has no other
    torch.manual_seed(0)
    backbone, calls = ResNet9(2), []
    backbone.register_forward_hook(lambda *_: calls.append(1))
    line.wait()
    found = cached_features(folder, backbone, DATA, VIEW)[""]
    results.put((len(calls), found.features.double().sum().item()))


def test_two_processes_at_once_extract_once(net, tmp_path):
    fork = multiprocessing.get_context("fork")
    line, results = fork.Barrier(2), fork.Queue()
    tasks = [fork.Process(target=at_once, args=(tmp_path, line, results)) for _ in range(2)]
    for task in tasks:
        task.start()
    found = sorted(results.get(timeout=100) for _ in tasks)
    for task in tasks:
        task.join()
    total = cached_features(tmp_path, net, DATA, VIEW)[""].features.double().sum().item()
    assert found == [(0, total), (3, total)]
    assert names(tmp_path) == ["json", "labels.npy", "npy"]
