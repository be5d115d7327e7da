import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sslkit.backbones import ResNet, ResNet9, Timm, describe
from sslkit.training import (
    AtomicCheckpointIO,
    Optimizer,
    decay_groups,
    export_backbone,
    load_backbone,
    read_checkpoint,
    warmup_decay,
)

CARD = {"size": 32, "normalize": "half", "method": "SimCLR", "data": "shapes", "commit": None}


def test_scaling():
    assert Optimizer(lr=1.0).scaled_lr(512) == 2.0
    assert Optimizer(lr=1.0, lr_scaling="sqrt").scaled_lr(256) == 16
    assert Optimizer(lr=1.0, lr_scaling="none").scaled_lr(512) == 1.0


def test_lars_step_by_hand_and_no_adaptation_for_biases():
    net = nn.Linear(3, 2)
    weight, bias = net.weight.detach().clone(), net.bias.detach().clone()
    optimizer = Optimizer(name="lars", lr=0.5, lr_scaling="none", weight_decay=0.1, momentum=0.9)
    optimizer = optimizer.build(net, 256)
    net(torch.randn(4, 3)).square().mean().backward()
    g = net.weight.grad.clone()
    trust = 0.001 * weight.norm() / (g.norm() + 0.1 * weight.norm() + 1e-8)
    bias_step = 0.5 * net.bias.grad.clone()
    optimizer.step()
    torch.testing.assert_close(net.weight.data, weight - 0.5 * trust * (g + 0.1 * weight))
    torch.testing.assert_close(net.bias.data, bias - bias_step)


def test_groups_hold_every_trainable_parameter_once():
    net = ResNet9(4)
    net.stem.requires_grad_(False)
    groups = decay_groups(net, 0.1)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    assert all(p.ndim == 4 for p in groups[0]["params"])
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_schedule_rises_then_falls_to_zero():
    values = [warmup_decay(s, warmup=10, total=100) for s in range(101)]
    assert values[9] == max(values) == 1
    assert values[:10] == sorted(values[:10])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[55] == pytest.approx(0.5)
    assert values[-1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adam"}, "'adam'; choose from sgd, adamw, lars"),
        ({"lr": -1}, "above 0, not -1"),
        ({"momentum": 1.0}, r"\[0, 1\), not 1.0"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"lr_scaling": "cube"}, "linear, sqrt, none"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Optimizer(**options)


def test_export_and_load(tmp_path):
    backbone = ResNet("resnet18", stem="cifar").eval()
    path = tmp_path / "backbone.safetensors"
    export_backbone(backbone, path, CARD)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backbone.json", "backbone.safetensors"]
    for target in (tmp_path, path):
        again, card = load_backbone(target)
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(again.eval()(images), backbone(images))
        assert card["normalize"] == "half"


def test_wrong_files_get_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder"):
        load_backbone(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="holds neither"):
        load_backbone(tmp_path)
    junk = tmp_path / "junk.ckpt"
    junk.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="not a checkpoint that loads safely"):
        read_checkpoint(junk)
    torch.save({"state_dict": {}}, junk)
    with pytest.raises(ValueError, match="not written by sslkit"):
        read_checkpoint(junk)
    torch.save({"sslkit": nn.Linear(1, 1)}, junk)
    with pytest.raises(ValueError, match="loads safely"):
        read_checkpoint(junk)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "backbone.safetensors"
    export_backbone(ResNet9(4), path, CARD)
    card = json.loads((tmp_path / "backbone.json").read_text())
    card["backbone"]["init_args"]["width"] = 8
    (tmp_path / "backbone.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="does not fit"):
        load_backbone(path)
    (tmp_path / "backbone.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs backbone\.json"):
        load_backbone(path)


def test_lars_adapts_without_decay_too():
    steps = []
    for weight_decay in (0.0, 1e-9):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        before = net.weight.detach().clone()
        optimizer = Optimizer(lr=1.0, lr_scaling="none", weight_decay=weight_decay).build(net, 256)
        net(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        steps.append((net.weight.detach() - before).norm().item())
    assert steps[0] == pytest.approx(steps[1], rel=1e-3)


def test_tokens_and_positions_go_without_decay():
    vit = Timm("vit_tiny_patch16_224", options={"img_size": 32})
    spared = {id(p) for p in decay_groups(vit, 0.1)[1]["params"]}
    named = dict(vit.named_parameters())
    assert {id(named[f"model.{name}"]) for name in ("cls_token", "pos_embed")} <= spared
    assert id(named["model.patch_embed.proj.weight"]) not in spared


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path, io = tmp_path / "folder" / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)

    def killed(content, file):
        Path(file).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(OSError, match="no space"):
        io.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def write_checkpoint(path, backbone, step):
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    card = {"backbone": describe(backbone), **CARD}
    torch.save({"sslkit": card, "state_dict": state, "global_step": step}, path)


@pytest.mark.parametrize(("step", "newer"), [(20, True), (10, False)])
def test_of_a_run_folder_the_newer_of_export_and_checkpoint_is_taken(tmp_path, step, newer):
    exported, last = ResNet9(4), ResNet9(4)
    export_backbone(exported, tmp_path / "backbone.safetensors", {**CARD, "step": 10})
    (tmp_path / "checkpoints").mkdir()
    write_checkpoint(tmp_path / "checkpoints" / "last.ckpt", last, step)
    backbone, card = load_backbone(tmp_path)
    expected = last if newer else exported
    assert torch.equal(backbone.stem[0].weight, expected.stem[0].weight)
    assert card["step"] == step


def test_damaged_files_get_one_line(tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_text("hello")
    with pytest.raises(ValueError, match="loads safely: damaged, or another file"):
        read_checkpoint(path)
    torch.save({"sslkit": {}, "state_dict": 5}, path)
    with pytest.raises(ValueError, match="no 'state_dict'"):
        read_checkpoint(path)
    torch.save({"sslkit": {"size": 32}, "state_dict": {}}, path)
    with pytest.raises(ValueError, match="does not say its backbone, normalize"):
        load_backbone(path)
