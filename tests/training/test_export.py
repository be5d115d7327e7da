import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import sslkit
from sslkit.backbones import NIN, ResNet, ResNet9, Timm
from sslkit.training import export_backbone, load_backbone
from sslkit.training.export import (
    check_onnx,
    check_weights,
    export_onnx,
    home_model,
    require_onnx,
)
from sslkit.training.weights import check_fit

CARD = {"size": 32, "normalize": "half"}
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("backbone", "library"),
    [
        (lambda: ResNet("resnet18", stem="cifar"), "torchvision"),
        (lambda: ResNet("resnet18"), "torchvision"),
        (lambda: Timm("vit_tiny_patch16_224", options={"img_size": 32, "depth": 1}), "timm"),
        (lambda: NIN(2), "sslkit"),
    ],
)
def test_the_file_gives_the_features_without_sslkit(backbone, library, tmp_path):
    backbone, path = backbone(), tmp_path / "backbone.safetensors"
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that training would leave
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    export_backbone(backbone, path, CARD)
    assert check_weights(path, backbone, IMAGES) == f"features in {library} equal to the last bit"
    assert backbone.training
    model = home_model(backbone)
    if model is not None:
        assert not type(model).__module__.startswith("sslkit")
        model.load_state_dict(load_file(path))
        with torch.no_grad():
            assert torch.equal(model.eval()(IMAGES), backbone.eval()(IMAGES))


@pytest.mark.parametrize("change", [0.5, float("nan")])
def test_a_file_that_gives_other_features_is_refused(change, tmp_path):
    backbone, path = ResNet9(2), tmp_path / "backbone.safetensors"
    export_backbone(backbone, path, CARD)
    state = load_file(path)
    state["stem.0.weight"][0, 0, 0, 0] += change
    save_file(state, path)
    with pytest.raises(ValueError, match=r"was not exported: its features differ .* 1e-05 is"):
        check_weights(path, backbone, IMAGES)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    backbone, path = ResNet9(2), tmp_path_factory.mktemp("onnx") / "backbone.onnx"
    export_onnx(backbone, path, 32, {"mean": "0.5"})
    assert backbone.training
    return backbone, path


def test_onnx_gives_the_features_at_any_batch(exported):
    import onnxruntime

    backbone, path = exported
    assert "features in onnxruntime" in check_onnx(path, backbone, IMAGES)
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].shape[1:] == [3, 32, 32]
    for n in (1, 2, 7):
        images = torch.randn(n, 3, 32, 32)
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = backbone.double().eval()(images.double())
        backbone.float()
        assert (torch.from_numpy(found) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_onnx_file_says_what_it_is_and_nothing_of_where_it_was_made(exported):
    import onnx

    _, path = exported
    assert [file.name for file in path.parent.iterdir()] == ["backbone.onnx"]
    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert about == {"made_with": "sslkit", "mean": "0.5"}
    assert str(Path(sslkit.__file__).parents[1]).encode() not in path.read_bytes()


def test_onnx_of_other_weights_is_refused(exported):
    backbone, path = exported
    other = ResNet9(2)
    other.load_state_dict(backbone.state_dict())
    other.stem[0].weight.data[0, 0, 0, 0] += 0.5
    with pytest.raises(ValueError, match="was not exported"):
        check_onnx(path, other, IMAGES)


def test_without_the_packages_one_line_says_how_to_install_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"onnxruntime, not installed: pip install .*--no_onnx"):
        require_onnx()


def test_a_checkpoint_that_does_not_fit_lists_its_keys(tmp_path):
    path = tmp_path / "x.ckpt"
    state = {f"backbone.{name}": value for name, value in ResNet9(4).state_dict().items()}
    del state["backbone.stem.0.weight"]
    state["backbone.more"] = torch.zeros(1)
    description = {"class_path": "sslkit.backbones.ResNet9", "init_args": {"width": 2}}
    torch.save({"sslkit": {**CARD, "backbone": description}, "state_dict": state}, path)
    with pytest.raises(ValueError, match="does not fit its architecture: 1 missing") as error:
        load_backbone(path)
    said = str(error.value)
    assert "1 missing: stem.0.weight; 1 unexpected: more;" in said
    assert "stem.1.weight (4,), not (2,), " in said
    assert said.endswith(", ...")


def test_what_fits_passes_and_what_is_no_tensor_does_not():
    check_fit({"a": torch.zeros(2)}, {"a": torch.ones(2)}, "x")
    with pytest.raises(ValueError, match="1 of another shape: a no tensor, not"):
        check_fit({"a": torch.zeros(2)}, {"a": 3}, "x")
