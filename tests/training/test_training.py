import dataclasses
import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import timm.optim.muon
import torch
from torch import nn

from sslkit.backbones import ResNet, ResNet9, Timm, describe
from sslkit.data import DataModule
from sslkit.methods import SimCLR
from sslkit.training import (
    AtomicCheckpointIO,
    Optimizer,
    decay_groups,
    export_backbone,
    load_backbone,
    read_checkpoint,
    warmup_decay,
)
from sslkit.views import SimCLRViews

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


# Of the five steps of the iteration (leloykun.github.io/ponder/muon-opt-coeffs).
QUINTIC = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]


def orthogonalised(matrix):
    """(m, n), its singular values brought near 1 by five steps of Newton and Schulz."""
    x = matrix / matrix.norm()
    for a, b, c in QUINTIC:
        x = a * x + b * (x @ x.T) @ x + c * (x @ x.T) @ (x @ x.T) @ x
    return x


def gradients(shape, n=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(n)]


def stepped(parameter, gradients, optimizer):
    """The values of a parameter after each step."""
    found = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        found.append(parameter.detach().clone())
    return found


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 3, 2, 2)])
def test_muon_is_an_independent_loop_in_float64(shape):
    net = nn.Module()
    net.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    given = gradients(shape)
    weight = net.weight.detach().double().flatten(1)
    options = {"lr": 0.05, "lr_scaling": "none", "weight_decay": 0.2, "momentum": 0.8}
    found = stepped(net.weight, given, Optimizer(name="muon", **options).build(net, 256))
    buffer, before = torch.zeros_like(weight), weight
    for gradient, after in zip(given, found, strict=True):
        g = gradient.double().flatten(1)
        buffer = 0.8 * buffer + 0.2 * g
        direction = 0.8 * buffer + 0.2 * g  # Nesterov's
        decayed = before * (1 - 0.05 * 0.2)
        size = 0.05 * 0.2 * max(weight.shape) ** 0.5
        update = (decayed - after.double().flatten(1)) / size
        # In float32: bfloat16, which is timm's, would be off by 0.01.
        error = (update - orthogonalised(direction)).norm() / update.norm()
        assert error < 1e-4
        u, _, v = torch.linalg.svd(direction, full_matrices=False)
        assert (update - u @ v).norm() / update.norm() < 0.15
        before = after.double().flatten(1)


def test_muon_leaves_biases_and_norms_to_adamw_with_nesterov():
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    options = {"lr": 0.05, "lr_scaling": "none", "weight_decay": 0.2, "momentum": 0.5}
    optimizer = Optimizer(name="muon", **options).build(net, 256)
    for parameter in (net[0].bias, net[1].weight, net[1].bias):
        given, value = gradients(5), parameter.detach().double()
        found = stepped(parameter, given, optimizer)
        first, second = torch.zeros_like(value), torch.zeros_like(value)
        for t, (gradient, after) in enumerate(zip(given, found, strict=True), 1):
            g = gradient.double()
            first = 0.9 * first + 0.1 * g
            second = 0.95 * second + 0.05 * g**2
            ahead = 0.9 * first + 0.1 * g
            value -= 0.05 * ahead / (1 - 0.9**t) / ((second / (1 - 0.95**t)).sqrt() + 1e-7)
            torch.testing.assert_close(after.double(), value, rtol=1e-5, atol=1e-6)
        parameter.grad = None


def test_muon_leaves_timms_own_as_it_was_whatever_a_step_comes_to():
    before, net = timm.optim.muon.zeropower_via_newtonschulz, nn.Linear(6, 10)
    optimizer = Optimizer(name="muon").build(net, 256)
    net.weight.grad = torch.ones(10, 6)

    def fails():
        raise OSError("in the middle of a step")

    with pytest.raises(OSError, match="in the middle"):
        optimizer.step(fails)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert timm.optim.muon.zeropower_via_newtonschulz is before


def test_muon_scales_its_lr_by_the_batch_and_a_checkpoint_takes_it_up(tmp_path):
    net, given = nn.Linear(6, 10), gradients((10, 6))
    optimizer = Optimizer(name="muon", lr=0.1).build(net, 512)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]
    stepped(net.weight, given[:2], optimizer)
    torch.save([net.state_dict(), optimizer.state_dict()], tmp_path / "x.ckpt")
    whole = stepped(net.weight, given[2:], optimizer)
    again = nn.Linear(6, 10)
    optimizer = Optimizer(name="muon", lr=0.1).build(again, 512)
    weights, state = torch.load(tmp_path / "x.ckpt", weights_only=True)
    again.load_state_dict(weights)
    optimizer.load_state_dict(state)
    resumed = stepped(again.weight, given[2:], optimizer)
    assert all(torch.equal(*pair) for pair in zip(whole, resumed, strict=True))


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
    ("warmup", "expected"),
    [(0, [1, 0.75, 0.5, 0.25, 0, 0]), (2, [0.5, 1, 1, 0.5, 0, 0]), (4, [0.25, 0.5, 0.75, 1, 1, 0])],
)
def test_a_linear_schedule_by_hand(warmup, expected):
    values = [warmup_decay(s, warmup=warmup, total=4, schedule="linear") for s in range(6)]
    assert values == expected


class Rates(pl.Callback):
    """Keeps the learning rate of each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("schedule", "shares"),
    [("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]), ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447])],
)
def test_a_run_follows_its_schedule(schedule, shares):
    optimizer = Optimizer(name="muon", lr=0.01, lr_scaling="none", warmup_epochs=1)
    optimizer = dataclasses.replace(optimizer, schedule=schedule)
    method, rates = SimCLR(ResNet9(4), SimCLRViews(16), optimizer), Rates()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[rates],
    )
    trainer.fit(method, datamodule=DataModule("shapes", limit=16, batch_size=8))
    assert rates.seen == pytest.approx([0.01 * share for share in shares], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adam"}, "'adam'; choose from sgd, adamw, lars, muon"),
        ({"schedule": "step"}, "no schedule named 'step'; choose from cosine, linear"),
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
