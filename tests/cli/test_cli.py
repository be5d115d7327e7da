import csv
import json
import logging
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image

from sslkit.backbones import ResNet9
from sslkit.callbacks import FiniteLoss
from sslkit.cli import evaluate, main
from sslkit.cli.arguments import config_names, with_config_files
from sslkit.cli.config import parse
from sslkit.cli.help import help_of
from sslkit.cli.trainer import trainer_of
from sslkit.data import DATASETS, DOWNSTREAM
from sslkit.data.class_disjoint import CLASS_DISJOINT
from sslkit.evaluation import PROTOCOLS
from sslkit.training import export_backbone


def answer(capsys, *argv):
    """The exit code and what is said on stderr."""
    code = main(list(argv))
    return code, capsys.readouterr().err.strip()


def test_help_is_quick_and_light():
    code = "import sslkit.cli, sys; sslkit.cli.main(['--help']); print('torch' in sys.modules)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 10
    assert done.stdout.strip().endswith("False")
    assert "pretrain" in done.stdout


DEDSP = [
    *("--model", "sslkit.methods.DEDSP", "--model.backbone", "sslkit.backbones.ResNet9"),
    *("--model.view", "sslkit.views.SupervisedView", "--model.view.size", "32"),
    *("--model.loss", "sslkit.losses.TripletMarginLoss", "--data.batch_size", "8"),
    *("--data.limit", "99", "--trainer.max_epochs", "1"),
]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["train"], "no command 'train'; choose from pretrain, evaluate, export, embed"),
        (["pretrain", "--config", "simclr_shape"], "did you mean simclr_shapes?"),
        (
            ["pretrain", "--config", "simclr_shapes", "--model.temperatur", "1"],
            "no option 'temperatur' (did you mean temperature?)",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--model.temperature", "-1"],
            "temperature must be a finite number above 0, not -1.0",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--data.batch_size", "1"],
            "needs at least 2 images a batch",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--data.bach_size", "1"],
            "did you mean --data.batch_size?",
        ),
        (
            ["pretrain", "--config", "rotation_cifar10_cpu", "--model.view", "SimCLRViews"],
            "view SimCLRViews does not fit sslkit.methods.Rotation; choose from RotationView",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--model.view", "SupervisedView"],
            "(scale) with the other's own: use a config of that view, or give --model.view.scale",
        ),
        (
            ["pretrain", "--config", "simclr_cifar10", "--model.init_args.backbone", "Timm"],
            "model.backbone Timm over the config's sslkit.backbones.ResNet would mix what it says",
        ),
        (
            ["pretrain", "--config", "de_dsp_omniglot_cpu", "--model.loss", "NPairLoss"],
            "(margin) with the other's own: use a config of that loss",
        ),
        (
            ["pretrain", "--config", "simclr_cifar10", "--model.backbone.class_path", "Tim"],
            "no class 'Tim' (did you mean Timm?)",
        ),
        (["pretrain", "--config", "simclr_folder", "--data.root", "nowhere"], "nowhere"),
        (["pretrain", "--config", "simclr_shapes", "--model", "MoCo"], "would drop"),
        (
            ["pretrain", "--config", "rotation_cifar10_cpu", "--model", "Rotaton"],
            "no method 'Rotaton' (did you mean Rotation?); choose from Colorization",
        ),
        (
            ["pretrain", "--config", "moco_shapes", "--model.queue_size", "2.5"],
            "model.queue_size must be a whole number, not 2.5",
        ),
        (["pretrain", "--config", "simclr_shapes", "--trainer.accelerator", "gpu"], "gpu"),
        (["pretrain", "--resume", "runs/none"], "no run folder to resume at runs/none"),
        (
            ["pretrain", "--config", "simclr_shapes", "--model.optimizer.name", "adam"],
            "model.optimizer.name must be one of sgd, adamw, lars, muon, not adam",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--model.temperature", "nan"],
            "model.temperature must be a number, not nan",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--model.backbone", "ResNet8"],
            "choose from Embedder, NIN, ResNet, ResNet9, Timm",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--trainer.max_epochs", "-1"],
            "the schedule needs an end",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--trainer.limit_train_batches", "0"],
            "leaves nothing to train on",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--trainer.max_epochs", "0"],
            "trainer.max_epochs 0 leaves nothing to train",
        ),
        (
            ["pretrain", "--config", "simclr_shapes", "--trainer.max_steps", "0"],
            "trainer.max_steps 0 leaves nothing to train",
        ),
        (["pretrain", "--config", "simclr_shapes", "--trainer.accelerator", "x"], "'x'"),
        (["pretrain", "--config", "simclr_shapes", "--data.limit", "9"], "9 images there are"),
        (["pretrain", *DEDSP, "--data.per_class", "2"], "data.held_out to 2 or more, not 0"),
        (["pretrain", *DEDSP, "--data.held_out", "2"], "so many images of a class: set per_class"),
        (["pretrain", "--config", "simclr_shapes", "--name", ""], "a folder's name"),
        (["pretrain", "--config", "simclr_shapes", "--out", "/proc/x"], "/proc/x"),
        (["evaluate", "random", "--data", "shapes", "--out", "/proc/x"], "/proc/x"),
        (["evaluate", "runs/none", "--data", "shapes"], "no run folder"),
        (["evaluate", "random"], "what to score on: neither was given"),
        (["evaluate", "random", "--data", "shapes", "--suite", "simclr12"], "both were given"),
        (["evaluate", "random", "--suite", "vtab"], "no suite named 'vtab'; choose from simclr12"),
        (["evaluate", "random", "--data", "dtd", "--root", "/x"], "dtd is not at /x/dtd"),
        (["evaluate", "random", "--data", "shapes", "--steps", "9"], "cut what trains: finetune"),
        (
            ["evaluate", "random", "--data", "shapes", "--protocol", "finetune", "--grid", "3"],
            "learning rates by weight decays, such as 3x4, not '3'",
        ),
        (["evaluate", "random", "--data", "shapes", "--protocol", "svm"], "choose from knn"),
        (
            ["evaluate", "runs/none", "--data", "shapes", "classes:/x"],
            "classes:/x tests with classes that no training image shows: it is for --protocol retr",
        ),
        (
            ["evaluate", "random", "--data", "omniglot", "--protocol", "retrieval", "semi1"],
            "it is for --protocol retrieval, not for semi1",
        ),
        (
            ["evaluate", "random", "--data", "omniglot", "--root", "/x", "--protocol", "retrieval"],
            "omniglot is not at /x/omniglot-py",
        ),
        (["evaluate", "nonsense", "--data", "shapes"], "no target 'nonsense'"),
        (
            ["evaluate", "random", "--data", "shapes", "--layer", "layer4", "stage3"],
            "ResNet has no layer 'stage3'; choose from layer1, layer2, layer3, layer4",
        ),
    ],
)
def test_bad_input_gets_one_line_and_code_2(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, error = answer(capsys, *argv)
    last = error.splitlines()[-1]
    assert code == 2
    assert last.startswith("sslkit: error: ")
    assert said in last
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        # what the base takes is the config's, what is given anew is not
        (["BYOLViews"], {"size": 32, "normalize": "half"}),
        (
            ["SupervisedView", "--model.view.init_args.scale", "[0.5, 1]"],
            {"size": 32, "scale": [0.5, 1.0], "flip": 0.5, "normalize": "half"},
        ),
        (
            ["sslkit.views.SimCLRViews", "--model.view.jitter", "1"],
            {"jitter": 1.0, "grayscale": 0.5},
        ),
    ],
)
def test_another_view_over_a_configs(argv, found):
    cli = parse(with_config_files(["--config", "simclr_shapes", "--model.view", *argv]))
    view = cli.plain()["model"]["init_args"]["view"]
    assert view["class_path"].endswith(argv[0])
    assert view["init_args"].items() >= found.items()


SMALL = ["--model.backbone.width", "4", "--data.limit", "64", "--data.batch_size", "16"]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("given", "batches"), [("1", 1), ("1.0", 4), ("2", 2), ("0.5", 2)])
def test_a_limit_of_one_batch_is_one_batch(given, batches):
    argv = ["--config", "simclr_shapes", "--trainer.limit_train_batches", given, *SMALL]
    cli = parse(with_config_files(argv))
    trainer = trainer_of(cli, [], enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(cli.model, datamodule=cli.datamodule)
    assert trainer.num_training_batches == batches


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_pretrain_evaluate_resume(capsys, tmp_path, monkeypatch, few_test_images):
    monkeypatch.chdir(tmp_path)
    wandb = ["--wandb", "disabled"]
    argv = ["pretrain", "--config", "simclr_shapes", "--trainer.max_epochs", "1", *SMALL, *wandb]
    assert main(argv) == 0
    run = tmp_path / "runs" / "simclr_shapes"
    there = {path.name for path in run.iterdir()}
    assert there >= {
        "backbone.json",
        "backbone.safetensors",
        "checkpoints",
        "config.yaml",
        "metrics.csv",
        "pictures",
        "report.html",
    }
    code, error = answer(capsys, *argv)
    assert (code, "--resume" in error) == (2, True)
    code, error = answer(capsys, "pretrain", "--resume", str(run), "--model.temperature", "0.1")
    assert (code, "--model.temperature" in error) == (2, True)
    with FileLock(run / ".lock"):
        code, error = answer(capsys, "pretrain", "--resume", str(run), "--trainer.max_epochs", "2")
        assert (code, "in use by another process" in error) == (2, True)
    code, said = answer(capsys, "pretrain", f"--resume={run}/", "--trainer.max_epochs", "2")
    assert (code, "a schedule of 2 epochs, where it began with 1" in said) == (0, True)
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Four batches an epoch, fewer than log_every_n_steps: each epoch is logged all the same.
    assert [row["step"] for row in rows if row["train/loss"]] == ["3", "7"]
    assert all(float(row["lr"]) > 0 for row in rows if row["train/loss"])
    assert {"images_per_second", "online/knn", "online/rankme"} <= set(rows[0])
    config = (run / "config.yaml").read_text()
    code, error = answer(capsys, "pretrain", "--resume", str(run), "--trainer.max_epochs", "1")
    assert (code, "has done its 2 epochs, 8 steps" in error) == (2, True)
    assert (run / "config.yaml").read_text() == config
    (run / "backbone.json").unlink()  # as if it had been killed before it was exported
    code, error = answer(capsys, "pretrain", "--resume", str(run), "--trainer.max_epochs", "1")
    assert (code, "has done its 2 epochs, 8 steps" in error) == (2, True)
    assert main(["pretrain", "--resume", str(run)]) == 0
    assert json.loads((run / "backbone.json").read_text())["step"] == 8
    (run / "report.html").unlink()  # as if it had been stopped before its report was written
    assert main(["pretrain", "--resume", str(run)]) == 0
    assert (run / "report.html").exists()
    argv = ["evaluate", str(run), "random", "--data", "shapes", "--limit", "200"]
    assert main([*argv, "--protocol", "knn"]) == 0
    assert main([*argv, "--protocol", "linear"]) == 0
    said = capsys.readouterr().out
    assert "| random " in said
    assert "shapes: first 200 to train with" in said
    files = list((run / "evaluation").glob("*.json"))
    assert {path.stem for path in files} == {"shapes-limit200", "shapes-limit200-random"}
    for path in files:
        assert set(json.loads(path.read_text())["protocols"]) == {"knn", "linear"}
    assert main([*argv, "--protocol", "knn", "--layer", "all"]) == 0
    assert f"| {run}, stage2 " in capsys.readouterr().out
    by_layer = {path.stem for path in (run / "evaluation").glob("*.json")} - {p.stem for p in files}
    assert len(by_layer) == 8
    assert {"shapes-limit200-stem", "shapes-limit200-stage3-random"} <= by_layer
    assert "scores by layer" in (run / "report.html").read_text()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_run_may_become_shorter_but_not_than_it_is(capsys, tmp_path, monkeypatch):
    def stop(_, trainer, __):
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    argv = ["pretrain", "--config", "simclr_shapes", *SMALL, "--wandb", "disabled"]
    with monkeypatch.context() as patched:
        patched.setattr(FiniteLoss, "on_train_epoch_start", stop)
        assert main([*argv, "--online_every", "0", "--trainer.max_epochs", "6"]) == 130
    again = ["pretrain", "--resume", "runs/simclr_shapes", "--trainer.max_epochs"]
    code, error = answer(capsys, *again, "2")
    assert (code, "the run has done its 2 epochs, 8 steps" in error) == (2, True)
    monkeypatch.setattr(logging.getLogger("sslkit"), "handlers", [])  # as in a new process
    code, said = answer(capsys, *again, "3")
    warning = "WARNING: the learning rate goes on along a schedule of 3 epochs, where it began with"
    assert (code, f"{warning} 6" in said) == (0, True)
    assert f"{warning} 6" in Path("runs/simclr_shapes/sslkit.log").read_text()
    with Path("runs/simclr_shapes/metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert last["step"] == "11"
    assert float(last["lr"]) == pytest.approx(0.001 * (1 + math.cos(math.pi * 11 / 12)))


SCORED = {
    "data": "shapes",
    "protocols": {"knn": {"accuracy": 50.0}},
    "failed": {},
    "n_train": 9,
    "n_test": 9,
    "fingerprints": ["0", "1"],
}


def test_random_weights_are_of_the_seed_of_the_run_before_them(tmp_path, monkeypatch):
    seen = []

    def record(backbone, *_, keep, **__):
        seen.append(backbone.stem[0].weight.detach().clone())
        keep(SCORED, "knn")
        return [SCORED]

    monkeypatch.setattr(evaluate, "evaluate_layers", record)
    monkeypatch.setattr(evaluate, "write_report", lambda _: None)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        card = {"size": 32, "normalize": "half", "step": 1}
        export_backbone(ResNet9(4), tmp_path / name / "backbone.safetensors", card)
    (tmp_path / "a" / "config.yaml").write_text("seed_everything: 5\nwandb: disabled\n")
    evaluate.score([str(tmp_path / "a"), "random", str(tmp_path / "b"), "random"], ["shapes"], [])
    for weights, seed in ((seen[1], 5), (seen[3], 0)):
        torch.manual_seed(seed)
        assert torch.equal(weights, ResNet9(4).stem[0].weight)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_scores_go_to_the_folder_of_what_was_scored(capsys, tmp_path, monkeypatch):
    def scored(*_, keep, **__):
        keep(SCORED, "knn")
        return [SCORED]

    monkeypatch.setattr(evaluate, "evaluate_layers", scored)
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        card = {"size": 32, "normalize": "half", "step": 1}
        (tmp_path / name).mkdir()
        export_backbone(ResNet9(4), tmp_path / name / "backbone.safetensors", card)
    argv = ["a", "random", "b/backbone.safetensors", "random", "--data", "shapes"]
    assert main(["evaluate", *argv]) == 0
    assert "the scores of b/backbone.safetensors are in no file" in capsys.readouterr().err
    written = sorted(str(path) for path in Path().rglob("*.json") if path.parent.name != "b")
    assert written == [
        "a/backbone.json",
        "a/evaluation/shapes-random.json",
        "a/evaluation/shapes.json",
        "a/evaluation/table/table.json",
    ]
    assert json.loads(Path("a/evaluation/shapes.json").read_text())["target"] == "a"
    assert main(["evaluate", "a", "b", "--data", "shapes", "--out", "o"]) == 0
    assert sorted(path.name for path in Path("o").glob("*.json")) == [
        "a-shapes.json",
        "b-shapes.json",
    ]
    argv = ["evaluate", "a", "random", "b", "random", "--data", "shapes", "--out", "p"]
    assert main(argv) == 0
    assert len(list(Path("p").glob("*.json"))) == 4
    Path("p/a-shapes.json").write_text("damaged")
    code, error = answer(capsys, *argv)
    assert (code, "a-shapes.json is no JSON" in error) == (2, True)
    assert Path("p/a-shapes.json").read_text() == "damaged"


def test_a_bad_wandb_key_leaves_no_folder(tmp_path):
    command = [sys.executable, "-m", "sslkit", "pretrain", "--config", "simclr_shapes"]
    done = subprocess.run(
        [*command, "--data.limit", "128"],
        cwd=tmp_path,
        env=os.environ | {"WANDB_API_KEY": "junk", "WANDB_MODE": "online"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "WANDB_API_KEY invalid" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "runs").iterdir())


def test_the_demo_runs_once(capsys):
    code, error = answer(capsys, "demo", "--trainer.devices", "2")
    assert (code, "the demo sets --trainer.devices itself" in error) == (2, True)


def test_help_names_every_data_set_and_protocol():
    text = help_of("evaluate")
    named = [name for name, source in DATASETS.items() if "test" in source.splits]
    named += [*DOWNSTREAM, *CLASS_DISJOINT]
    assert all(name in text for name in [*named, *PROTOCOLS])
    assert all(name in help_of("pretrain") for name in config_names())


def test_damaged_images_are_named_in_the_runs_log(tmp_path, capsys):
    for i in range(4):
        Image.new("RGB", (40, 40), (60 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.jpg").write_text("junk")
    (tmp_path / "empty.png").touch()
    argv = ["--config", "simclr_folder", "--data.root", str(tmp_path), "--data.size", "32"]
    argv += ["--data.batch_size", "4", "--model.view.size", "32", "--trainer.max_epochs", "1"]
    argv += ["--wandb", "disabled", "--out", str(tmp_path / "runs"), "--online_every", "0"]
    code, said = answer(capsys, "pretrain", *argv, "--trainer.log_every_n_steps", "1")
    assert code == 0
    assert "left out 2 of 6 images" in said
    log = (tmp_path / "runs" / "simclr_folder" / "sslkit.log").read_text()
    assert "left out 'bad.jpg': not an image" in log
    assert "left out 'empty.png': empty file" in log
