import pytest
import torch
import torchvision

from sslkit.backbones import NIN, Backbone, Embedder, ResNet, ResNet9, Timm, build, describe

MAKERS = {
    "resnet18": lambda: ResNet("resnet18", stem="cifar"),
    "resnet50": lambda: ResNet("resnet50"),
    "resnet9": lambda: ResNet9(width=4),
    "embedder": lambda: Embedder(ResNet9(width=4), 16),
    "embedder-timm": lambda: Embedder(Timm("resnet10t"), 16, normalize=False),
    "nin": lambda: NIN(3),
    "timm-cnn": lambda: Timm("resnet10t"),
    "timm-vit": lambda: Timm("vit_tiny_patch16_224", options={"img_size": 64}),
    "timm-two-widths": lambda: Timm("mobilenetv3_small_050"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_shapes_and_rebuilding(make):
    torch.manual_seed(0)
    backbone = make().eval()
    images = torch.randn(2, 3, 64, 64)
    features = backbone(images)
    assert features.shape == (2, backbone.feature_dim)
    n, _, h, w = backbone.feature_map(images).shape
    assert (n, h == w, h > 1) == (2, True, True)
    maps = backbone.feature_maps(images)
    assert len(maps) == len(backbone.layers) == len(set(backbone.layers))
    torch.testing.assert_close(maps[-1], backbone.feature_map(images))
    sides = [map.shape[-1] for map in maps]
    assert sides == sorted(sides, reverse=True)
    again = build(describe(backbone))
    again.load_exported(backbone.export_state())
    torch.testing.assert_close(again.eval()(images), features)


def test_equals_torchvision():
    peer = torchvision.models.resnet18()
    ours = ResNet("resnet18")
    missing, unexpected = peer.load_state_dict(ours.export_state(), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    peer.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(images), peer.eval()(images))


def test_timm_loads_a_resnet():
    import timm

    peer = timm.create_model("resnet18", num_classes=0)
    ours = ResNet("resnet18")
    peer.load_state_dict(ours.export_state())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(images), peer.eval()(images))


def test_cifar_stem_keeps_resolution():
    images = torch.zeros(2, 3, 32, 32)
    assert ResNet(stem="cifar").feature_map(images).shape[-2:] == (4, 4)
    assert ResNet(stem="imagenet").feature_map(images).shape[-2:] == (1, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet("resnet19"), "resnet19.*resnet18"),
        (lambda: ResNet(stem="tiny"), "'imagenet' or 'cifar', not 'tiny'"),
        (lambda: ResNet9(0), "at least 1, not 0"),
        (lambda: Timm("resnet10x"), "no model named 'resnet10x'"),
        (lambda: build({}), "no Backbone ''"),
        (lambda: build({"class_path": "os.system", "init_args": {}}), "no Backbone 'os.system'"),
        (
            lambda: build({"class_path": "sslkit.backbones.ResNet9", "init_args": {"w": 1}}),
            "cannot be built.*'w'",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_build_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="import its module first"):
        build({"class_path": "stranger.Net", "init_args": {}})


def test_a_users_own_backbone_is_described_and_built():
    class Own(Backbone):
        feature_dim = 3

        def feature_map(self, images):
            return images

        def init_args(self):
            return {}

    Own.__qualname__ = "Own"
    globals()["Own"] = Own
    assert isinstance(build(describe(Own())), Own)
