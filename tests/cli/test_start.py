"""Runs that begin with the weights of another."""

import pytest
import torch
import yaml
from safetensors.torch import load_file

from sslkit.backbones import Embedder, ResNet9
from sslkit.cli import main
from sslkit.losses import TripletMarginLoss
from sslkit.miners import Miner
from sslkit.training import export_backbone, load_backbone

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

LOSSES = "sslkit.losses"
CONFIG = """
model:
  class_path: sslkit.methods.MetricLearning
  init_args:
    backbone: {class_path: sslkit.backbones.ResNet9, init_args: {width: 2}}
    view: {class_path: sslkit.views.SupervisedView, init_args: {size: 32, normalize: half}}
    optimizer: {name: sgd, lr: 0.1, warmup_epochs: 0}
    loss:
      class_path: sslkit.losses.TripletMarginLoss
      init_args:
        miner:
          class_path: sslkit.miners.Miner
          init_args: {miner: sslkit.miners.semi_hard, options: {margin: 0.5}}
    embedding_dim: 4
    backbone_lr: 0
data: {name: shapes, limit: 64, batch_size: 16}
trainer: {max_epochs: 1, accelerator: cpu}
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """In the working folder: a config, and a backbone that fits it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metric.yaml").write_text(CONFIG)
    plain = yaml.safe_load(CONFIG)
    plain["model"]["init_args"]["loss"] = {"class_path": "sslkit.losses.SupConLoss"}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    card = {"size": 32, "normalize": "half"}
    export_backbone(ResNet9(2), tmp_path / "before" / "backbone.safetensors", card)
    broken = ResNet9(2)
    broken.stem[0].weight.data[0, 0, 0, 0] = torch.nan
    export_backbone(broken, tmp_path / "broken" / "backbone.safetensors", card)
    return tmp_path


def pretrain(*argv):
    config = [] if "--config" in argv else ["--config", "metric.yaml"]
    return main(["pretrain", *config, "--wandb", "disabled", "--online_every", "0", *argv])


def test_a_run_starts_from_a_backbone_and_is_itself_one_to_start_from(files, capsys):
    assert pretrain("--start", "before") == 0
    assert "normalised" not in capsys.readouterr().err
    run = files / "runs" / "metric"
    before, after = (
        load_file("before/backbone.safetensors"),
        load_file(run / "backbone.safetensors"),
    )
    kernels = [name for name in before if before[name].ndim == 4]
    assert kernels
    for name in kernels:  # which a learning rate of 0 leaves as they were
        assert torch.equal(after[f"backbone.{name}"], before[name])
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["start"] == "before"
    # It goes on without what it started from, and refuses another start.
    (files / "before").rename(files / "moved")
    more = ["--resume", str(run), "--trainer.max_epochs", "2"]
    assert main(["pretrain", *more, "--start", "moved"]) == 2
    assert "leave out --start" in capsys.readouterr().err
    assert main(["pretrain", *more]) == 0
    assert pretrain("--start", str(run), "--name", "third") == 0
    backbone, card = load_backbone("runs/third")
    assert (type(backbone).__name__, card["method"]) == ("Embedder", "MetricLearning")


def test_the_config_of_a_run_makes_the_same_loss_again(files):
    from sslkit.cli.config import parse

    assert pretrain() == 0
    loss = parse(["--config", "runs/metric/config.yaml"]).model.loss
    assert isinstance(loss, TripletMarginLoss)
    assert isinstance(loss.miner, Miner)
    assert loss.miner.options == {"margin": 0.5}


def test_images_of_another_kind_are_told(files, capsys):
    card = {"size": 32, "normalize": "cifar10", "grayscale": True}
    export_backbone(ResNet9(2), files / "other" / "backbone.safetensors", card)
    assert pretrain("--start", "other") == 0
    said = capsys.readouterr().err
    assert "was trained on images normalised by cifar10, and this view normalises by half" in said
    assert "was trained on images grey, and these are in colour" in said


def test_an_embedding_that_is_not_taken_is_told(files, capsys):
    card = {"size": 32, "normalize": "half"}
    export_backbone(Embedder(ResNet9(2), 4), files / "four" / "backbone.safetensors", card)
    said = "--start four: its embedding of 4 numbers is not taken, what is under it is"
    for dim, told in (("4", False), ("5", True)):
        assert pretrain("--start", "four", "--model.embedding_dim", dim, "--name", dim) == 0
        assert (said in capsys.readouterr().err) == told


def test_another_loss_is_taken_where_the_config_says_nothing_of_its_own(files):
    loss = [f"{LOSSES}.TripletMarginLoss", "--model.loss.miner", "sslkit.miners.hard"]
    assert pretrain("--config", "plain.yaml", "--model.loss", *loss) == 0
    config = yaml.safe_load((files / "runs" / "plain" / "config.yaml").read_text())
    found = config["model"]["init_args"]["loss"]["init_args"]
    assert (found["miner"], found["margin"]) == ("sslkit.miners.hard", 0.2)


@pytest.mark.parametrize(("epochs", "told"), [(1, False), (2, True)])
def test_a_warm_up_as_long_as_the_run_is_told(epochs, told, files, capsys):
    warmup = ["--model.optimizer.warmup_epochs", str(epochs), "--trainer.max_epochs", "2"]
    assert pretrain(*warmup) == 0
    said = f"a warm-up of {epochs} epochs takes the whole run of 2: the learning rate only rises"
    assert (said in capsys.readouterr().err) == told


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--start", "nowhere/run"], "no run folder, checkpoint or backbone file at nowhere/run"),
        (["--start", "before", "--model.backbone.width", "3"], "are of ResNet9(width=2), but the"),
        (["--start", ""], "--start takes a target that was trained, not ''"),
        (["--start", "random"], "--start takes a target that was trained, not 'random'"),
        (["--start", "broken"], "--start broken: stem.0.weight holds NaN or infinity"),
        (["--model.embedding_dim", "1"], "must be at least 2 at length 1, not 1"),
        (["--data.per_class", "16"], "a batch must hold 2 classes or more, not one: raise batch_"),
        (["--start", "torchvision:resnet9"], "no ResNet named 'resnet9'"),
        (
            ["--config", "plain.yaml", "--model.loss", "NTXentLos"],
            "choose from sslkit.losses.Ang",
        ),
        (["--config", "plain.yaml", "--model.loss", f"{LOSSES}.NTXentLoss"], "does not take embed"),
        (["--config", "plain.yaml", "--model.loss", f"{LOSSES}.SupConLos"], "(did you mean sslkit"),
        (["--model.loss", "sslkit.losses.TripletMarginLos"], "no loss 'TripletMarginLos' (did"),
        (["--model.loss", "sslkit.losses.DDMLLoss"], "what it says of that (miner) with the other"),
        (["--model.loss.miner", "sslkit.miners.all_pairs"], "expected Triplets from a miner, not"),
        (["--model.loss.miner", "sslkit.miners.hrd"], "no miner 'hrd'"),
        (["--model.loss.miner", "semi_hard"], "choose from sslkit.miners.Miner"),
        (["--model.loss.miner.options", "{margn: 1}"], "no option 'margn'; choose from margin"),
        (["--model.embedding_dim", "0"], "width of the embeddings must be at least 2"),
        (["--data.name", "folder", "--data.root", "."], "no image under"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(argv, said, files, capsys):
    assert pretrain(*argv) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("sslkit: error: ")
    assert said in last
    assert not (files / "runs").exists()
