import csv

import pytest
import torch

from sslkit.cli import main
from sslkit.training import load_backbone


def test_evaluation_between_epochs_is_not_compiled():
    from sslkit.callbacks import CompiledBackbone

    class Method(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Linear(2, 2)

    graphs, method, images = [], Method(), torch.ones(3, 2)
    names = list(method.state_dict())
    compiled = CompiledBackbone()
    method.backbone.compile = lambda **options: torch.nn.Module.compile(
        method.backbone, backend=lambda graph, _: graphs.append(graph) or graph, **options
    )
    expected = method.backbone(images)
    compiled.on_train_start(None, method)
    compiled.on_train_epoch_start(None, method)
    assert torch.equal(method.backbone(images), expected)
    assert len(graphs) == 1
    compiled.on_train_epoch_end(None, method)
    method.backbone(images[:1])
    assert len(graphs) == 1
    compiled.teardown()
    method.backbone(images[:2])
    assert len(graphs) == 2
    assert list(method.state_dict()) == names


@pytest.mark.slow
def test_a_compiled_run_is_the_run_as_written(tmp_path):
    argv = ["pretrain", "--config", "simclr_shapes", "--wandb", "disabled", "--out", str(tmp_path)]
    argv += ["--model.backbone.width", "2", "--data.limit", "256", "--data.batch_size", "64"]
    argv += ["--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"]
    found = {}
    for name, value in (("plain", "false"), ("compiled", "true")):
        assert main([*argv, "--name", name, "--compile", value]) == 0
        with (tmp_path / name / "metrics.csv").open(newline="") as file:
            losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
        backbone, _ = load_backbone(str(tmp_path / name))
        found[name] = (losses, backbone.state_dict())
    (losses, state), (others, other) = found.values()
    assert others == pytest.approx(losses, rel=1e-3)
    assert list(state) == list(other)
