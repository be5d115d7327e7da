"""Callbacks on the command line of a run: it trains, is rerun by its config, and resumes."""

import csv
import json
import os
import signal

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

from sslkit.cli import main
from sslkit.methods import SimCLR
from sslkit.training import load_backbone, read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

TINY = [
    *("pretrain", "--config", "simclr_shapes", "--wandb", "disabled", "--online_every", "0"),
    *("--model.backbone.width", "2", "--data.limit", "64", "--data.batch_size", "16"),
    *("--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1"),
    *("--trainer.accelerator", "cpu"),
]
RESIZING = ["--trainer.callbacks+=ProgressiveResizing", "--trainer.callbacks.sizes", "[8,16]"]
AVERAGING = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay", "0.5"]
STEPS = 8


@pytest.fixture
def sizes(monkeypatch, tmp_path):
    """The step and the size of the views, for each step that is trained from here on."""
    monkeypatch.chdir(tmp_path)
    seen, objective = [], SimCLR.objective

    def noting(method, batch):
        seen.append((method.trainer.global_step, batch.views[0].shape[-1]))
        return objective(method, batch)

    monkeypatch.setattr(SimCLR, "objective", noting)
    return seen


def interrupt(monkeypatch, step):
    """Ctrl-C is pressed during a step."""
    objective = SimCLR.objective

    def interrupted(method, batch):
        if method.trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return objective(method, batch)

    monkeypatch.setattr(SimCLR, "objective", interrupted)


def left(name):
    """What a run left that must not depend on how it came about."""
    with open(f"runs/{name}/metrics.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]
    with open(f"runs/{name}/backbone.json") as file:
        card = json.load(file)
    del card["commit"]  # of the source, which may move on meanwhile
    return rows, card, load_file(f"runs/{name}/backbone.safetensors")


def check_same(name, other):
    (rows, card, weights), (others, its_card, its_weights) = left(name), left(other)
    assert len(rows) >= STEPS
    assert (rows, card) == (others, its_card)
    assert weights.keys() == its_weights.keys()
    assert all(torch.equal(value, its_weights[key]) for key, value in weights.items())


@pytest.mark.parametrize("given", [RESIZING, AVERAGING], ids=["resizing", "averaging"])
def test_a_run_is_repeated_by_its_config_and_resumes_exactly(given, sizes, monkeypatch):
    assert main([*TINY, *given, "--name", "whole"]) == 0
    whole = sizes[:]
    assert [step for step, _ in whole] == list(range(STEPS))
    assert main(["pretrain", "--config", "runs/whole/config.yaml", "--name", "again"]) == 0
    assert sizes == 2 * whole
    check_same("whole", "again")
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        assert main([*TINY, *given, "--name", "cut"]) == 130
    assert read_checkpoint("runs/cut/checkpoints/last.ckpt")["global_step"] == 5
    assert main(["pretrain", "--resume", "runs/cut"]) == 0
    assert sizes[2 * STEPS :] == whole
    check_same("whole", "cut")


@pytest.mark.parametrize("step", [2, 3])  # before the last of an epoch, and the last
def test_a_run_that_was_cut_and_resumed_can_be_extended(step, sizes, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, step)
        assert main([*TINY, "--name", "cut"]) == 130
    assert main(["pretrain", "--resume", "runs/cut"]) == 0
    assert main(["pretrain", "--resume", "runs/cut", "--trainer.max_epochs", "3"]) == 0
    assert [step for step, _ in sizes] == list(range(12))


def test_what_cannot_be_resized_is_refused_before_there_is_a_run(sizes, capsys, tmp_path):
    for wrong, said in (("[8,32]", "below the view's 32"), ("[2]", "cannot take views of 2")):
        assert main([*TINY, *RESIZING[:-1], wrong]) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("runs/*/config.yaml"))


def test_a_resumed_run_keeps_its_callbacks(sizes, capsys):
    assert main([*TINY, *RESIZING, "--name", "run"]) == 0
    assert main(["pretrain", "--resume", "runs/run", "--trainer.callbacks", "null"]) == 2
    assert "callbacks" in capsys.readouterr().err.splitlines()[-1]


def test_small_views_come_first_and_the_card_says_full_size(sizes):
    assert main([*TINY, *RESIZING, "--name", "small"]) == 0
    assert [size for _, size in sizes] == [8, 8, 8, 16, 16, 16, 32, 32]  # 70 % of 8 is 5.6
    _, card = load_backbone("runs/small")
    assert (card["size"], card["step"]) == (32, STEPS)
    with open("runs/small/config.yaml") as file:
        callbacks = yaml.safe_load(file)["trainer"]["callbacks"]
    options = {"sizes": [8, 16], "share": 0.7}
    assert callbacks == [
        {"class_path": "sslkit.callbacks.ProgressiveResizing", "init_args": options}
    ]


def test_averaged_weights_are_what_is_exported(sizes, monkeypatch):
    steps, update = [], AveragedModel.update_parameters

    def noting(averaged, method):
        steps.append(method.backbone.stem[0].weight.detach().double().clone())
        update(averaged, method)

    monkeypatch.setattr(AveragedModel, "update_parameters", noting)
    assert main([*TINY, *AVERAGING, "--name", "averaged"]) == 0
    assert len(steps) == STEPS
    average = steps[0]
    for weights in steps[1:]:
        average = 0.5 * average + 0.5 * weights
    assert not torch.allclose(average, steps[-1], rtol=1e-3)
    backbone, card = load_backbone("runs/averaged")
    torch.testing.assert_close(backbone.stem[0].weight.double(), average, rtol=1e-5, atol=1e-6)
    assert card["step"] == STEPS
    checkpoint, _ = load_backbone("runs/averaged/checkpoints/last.ckpt")
    assert torch.equal(checkpoint.stem[0].weight, backbone.stem[0].weight)
    trained = read_checkpoint("runs/averaged/checkpoints/last.ckpt")["current_model_state"]
    assert torch.equal(trained["backbone.stem.0.weight"].double(), steps[-1])
