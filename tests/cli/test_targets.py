import socket

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from sslkit.backbones import ResNet9
from sslkit.cli import targets
from sslkit.cli.targets import device_of, file_name, load_target, seed_of, weights_of
from sslkit.training import export_backbone


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(1)
    return torchvision.models.resnet18().eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def features(model, images):
    with torch.no_grad():
        return model.eval()(images)


def without_head(resnet, images):
    head, resnet.fc = resnet.fc, nn.Identity()
    found = features(resnet, images)
    resnet.fc = head
    return found


def test_random_is_of_the_architecture_before_it_and_of_the_seed():
    before = (ResNet9(2), {"size": 48, "normalize": "half"})
    state = torch.get_rng_state()
    backbone, card = load_target("random", before, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(backbone.stem[0].weight, ResNet9(2).stem[0].weight)
    assert card == before[1]


def test_a_run_folder_and_its_file(tmp_path, images):
    backbone = ResNet9(2)
    export_backbone(backbone, tmp_path / "backbone.safetensors", {"size": 32, "normalize": "half"})
    for target in (str(tmp_path), str(tmp_path / "backbone.safetensors")):
        loaded, card = load_target(target)
        assert torch.equal(features(loaded, images), features(backbone, images))
        assert (card["size"], weights_of(target)) == (32, "trained")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_torchvisions_own_keys_from_a_file(suffix, resnet, images, tmp_path):
    file = tmp_path / f"x.{suffix}"
    (torch.save if suffix == "pth" else save_file)(resnet.state_dict(), file)
    backbone, card = load_target(f"torchvision:resnet18={file}")
    assert torch.equal(features(backbone, images), without_head(resnet, images))
    assert card["size"] == 224
    assert card["normalize"] == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_timms_own_keys_from_a_file(images, tmp_path):
    model = timm.create_model("resnet10t")
    torch.save(model.state_dict(), tmp_path / "x.pth")
    backbone, card = load_target(f"timm:resnet10t={tmp_path}/x.pth")
    model.reset_classifier(0)
    assert torch.equal(features(backbone, images), features(model, images))
    assert (card["size"], len(card["normalize"])) == (176, 2)
    assert weights_of(f"timm:resnet10t={tmp_path}/x.pth") == "timm"


def test_weights_that_do_not_fit_are_told_by_their_keys(resnet, tmp_path):
    state = resnet.state_dict()
    for i in range(4):
        state[f"extra{i}"] = state.pop(f"layer{i + 1}.0.conv1.weight")
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="does not fit") as error:
        load_target(f"torchvision:resnet18={tmp_path}/x.pth")
    said = str(error.value)
    listed = ", ".join(f"layer{i}.0.conv1.weight" for i in (1, 2, 3))
    assert (
        f"torchvision's resnet18, does not fit its architecture: 4 missing: {listed}, ...;" in said
    )
    assert "4 unexpected: extra0, extra1, extra2, ...;" in said
    assert said.endswith("1 of another shape: conv1.weight (64, 3, 3, 3), not (64, 3, 7, 7)")


def test_files_that_are_no_state_dict(tmp_path):
    file = tmp_path / "x.pth"
    for content, said in (
        (nn.Linear(1, 1), "holds more than tensors"),
        ({"model": {"a": 1}, "epoch": 3}, "no tensor is at model, epoch"),
        ([torch.zeros(1)], "holds one list"),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=said):
            load_target(f"torchvision:resnet18={file}")
    (tmp_path / "x.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged"):
        load_target(f"torchvision:resnet18={tmp_path}/x.safetensors")
    with pytest.raises(FileNotFoundError, match="no file of weights at"):
        load_target(f"torchvision:resnet18={tmp_path}/none.pth")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch and no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(targets, "answers", lambda url: False)
    return tmp_path / "checkpoints"


def test_torchvisions_weights_come_from_the_cache_or_the_network(
    hub, resnet, images, tmp_path, monkeypatch
):
    said = "torchvision's weights for 'resnet18' cannot be had: no answer from https://.*=FILE"
    with pytest.raises(ValueError, match=said):
        load_target("torchvision:resnet18")
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    file = hub / weights.url.rpartition("/")[2]

    def fetch(url, **options):
        assert url == weights.url
        assert options["weights_only"] is options["check_hash"] is True
        assert socket.getdefaulttimeout() == targets.TIMEOUT
        hub.mkdir()
        torch.save(resnet.state_dict(), file)

    monkeypatch.setattr(targets, "answers", lambda url: True)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    for _ in ("fetched", "cached"):
        backbone, _ = load_target("torchvision:resnet18.IMAGENET1K_V1")
        assert torch.equal(features(backbone, images), without_head(resnet, images))
        monkeypatch.setattr(targets, "answers", lambda url: False)
    assert socket.getdefaulttimeout() is None


def test_a_failing_download_is_one_line(hub, monkeypatch):
    monkeypatch.setattr(targets, "answers", lambda url: True)

    def fetch(url, **options):
        raise RuntimeError("invalid hash value\nat length")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    with pytest.raises(ValueError, match="cannot be had: invalid hash value; torchvision:"):
        load_target("torchvision:resnet18")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("torchvision:resnet18.V9", "no weights 'V9' of resnet18; choose from IMAGENET1K_V1"),
        ("torchvision:vgg16", "no ResNet named 'vgg16'; choose from resnet18"),
        ("timm:resnet9=x.pth", "timm has no model named 'resnet9'"),
        ("nonsense", "no target 'nonsense'"),
        ("runs/none", "no run folder"),
    ],
)
def test_targets_that_there_are_not(target, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        load_target(target)


def test_the_rest(tmp_path):
    assert [weights_of(t) for t in ("random", "resnet50", "runs/x", "x.ckpt")] == [
        *("random", "timm", "trained", "trained")
    ]
    assert file_name("timm:a=b/c.pth") == "timm_a_b_c.pth"
    assert seed_of(None) == seed_of(tmp_path) == 0
    (tmp_path / "config.yaml").write_text("seed_everything: 7\n")
    assert seed_of(tmp_path) == 7
    assert device_of("cpu") == "cpu"
    with pytest.raises(ValueError, match="--device x cannot be used here"):
        device_of("x")
