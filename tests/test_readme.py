"""Every command and every piece of Python in the README and docs/ runs as printed, only smaller."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslkit.cli import COMMANDS as COMMANDS_OF_SSLKIT
from sslkit.cli import demo, main
from sslkit.data import ArrayDataset
from sslkit.data.datasets import DATASETS

ROOT = Path(__file__).parents[1]
PAGES = "".join(p.read_text() for p in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))))
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGES, re.S)
COMMANDS = [
    shlex.split(line, comments=True)
    for kind, text in BLOCKS
    if not kind
    for line in text.split("\n")
]
SMALL = {
    "pretrain": [
        *("--data.batch_size", "8", "--data.limit", "40", "--trainer.limit_train_batches", "2"),
        *("--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1"),
    ],
    "--resume": ["--trainer.max_epochs", "3"],
    "evaluate": ["--limit", "220"],
    "finetune": ["--limit", "220", "--steps", "1", "--grid", "1x1"],
    "views": ["--data.limit", "8"],
    "export": [],
    "embed": [],
    "neighbours": [],
}


def read(root, split, download):
    """In the place of CIFAR-10: noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (220, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return ArrayDataset(images, torch.arange(220) % 10, [str(i) for i in range(10)])


@pytest.fixture
def place(tmp_path, monkeypatch, few_test_images):
    """An empty folder with data sets in it, as a user has them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setitem(DATASETS, "cifar10", DATASETS["cifar10"]._replace(read=read))
    monkeypatch.setattr("sslkit.data.datasets._fetch", lambda *_: "no network")
    monkeypatch.setattr(demo, "LIMIT", 220)
    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    for i, name in enumerate(["cat", *map(str, range(12))]):
        Image.new("RGB", (60, 40), (20 * i, 90, 200 - 10 * i)).save(tmp_path / f"photos/{name}.jpg")
    return tmp_path


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_readme(place):
    mine = [words[1:] for words in COMMANDS if words[:1] == ["sslkit"]]
    assert {argv[0] for argv in mine} == set(COMMANDS_OF_SSLKIT) - {"demo"}
    for argv in mine:
        (name,) = {"--resume", "finetune"} & set(argv) or {argv[0]}
        small = SMALL[name]
        if "metric_shapes" in argv and argv[0] == "pretrain":  # batches of 8 images a class
            small = [*small, "--data.batch_size", "16", "--data.limit", "400"]
        if "simclr_folder" in argv:
            small = [*small, "--data.size", "32", "--model.view.size", "32"]
        assert main([*argv, *small]) == 0, argv
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "README.md", "exec"), {})
    (leet,) = (words for words in COMMANDS if words[:2] == ["wandb", "leet"])
    assert (place / leet[2]).is_dir()
    assert any(place.glob(f"{leet[2]}/run-*.wandb"))
    (sync,) = (words for words in COMMANDS if words[:2] == ["wandb", "sync"])
    runs = [str(run) for run in place.glob(sync[2])]
    assert runs
    for words in (["leet", "--help"], ["sync", *runs, "--help"]):
        subprocess.run([sys.executable, "-m", "wandb", *words], check=True, capture_output=True)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_demo(place, capsys):
    assert main(["demo", *SMALL["pretrain"]]) == 0
    said = capsys.readouterr().out
    assert re.search(r"random weights +\d+\.\d +\d+\.\d\nSimCLR +\d+\.\d +\d+\.\d\n", said)
    for name in ("report", "run folder"):
        (path,) = re.findall(rf"^{name} +(\S+)$", said, re.M)
        assert Path(path).exists()


def test_make_targets():
    made = [words[1] for words in COMMANDS if words[:1] == ["make"]]
    assert made == ["demo", "test"]
    for target in made:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)
