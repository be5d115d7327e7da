"""``sslkit evaluate --suite``: a table with every set, and no cell that is made twice."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslkit.backbones import ResNet9
from sslkit.cli import main
from sslkit.evaluation import protocols
from sslkit.training import export_backbone


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder, and a root with one of the 12 sets in miniature: pets without a class."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    torch.manual_seed(0)
    card = {"size": 16, "normalize": "half", "step": 1, "method": "SimCLR"}
    export_backbone(ResNet9(4), tmp_path / "a" / "backbone.safetensors", card)
    annotations = tmp_path / "data" / "oxford-iiit-pet" / "annotations"
    annotations.mkdir(parents=True)
    (annotations.parent / "images").mkdir()
    for split, numbers in (("trainval", range(12)), ("test", range(12, 17))):
        lines = []
        for label, colour in ((1, (200, 40, 40)), (2, (40, 40, 200))):
            for i in numbers:
                name = f"{'cat' if label == 1 else 'dog'}_{i}"
                image = Image.new("RGB", (20, 20), tuple(min(255, c + i) for c in colour))
                image.save(annotations.parent / "images" / f"{name}.jpg")
                lines.append(f"{name} {label} 1 {label}\n")
        (annotations / f"{split}.txt").write_text("".join(lines))
    return tmp_path / "a"


ARGV = ["evaluate", "a", "--suite", "simclr12", "--root", "data", "--protocol", "linear"]


def test_every_set_is_in_the_table(run, capsys, monkeypatch):
    monkeypatch.setattr("sslkit.data.datasets._fetch", lambda *_: "no network")
    assert main(ARGV) == 0
    said = capsys.readouterr()
    table = run / "evaluation" / "table"
    rows = list(csv.DictReader((table / "simclr12.csv").read_text().splitlines()))
    ours = {row["data"]: row for row in rows if row["target"] == "a"}
    assert len(ours) == 12
    assert ours["oxford_pets"]["status"] == "scored"
    assert ours["oxford_pets"]["metric"] == "mean_per_class"
    assert ours["oxford_pets"]["differs"]
    assert {row["status"] for name, row in ours.items() if name != "oxford_pets"} == {"absent"}
    assert "dtd is not at" in ours["dtd"]["note"]
    assert len([row for row in rows if row["status"] == "published"]) >= 24
    assert "absent" in said.out
    assert {path.suffix for path in table.iterdir()} == {".md", ".csv", ".tex", ".json", ".png"}
    kept = json.loads((run / "evaluation" / "oxford_pets.json").read_text())
    assert kept["protocols"]["linear"]["protocol"] == protocols.PROTOCOLS["linear"].id
    assert list((run / "evaluation" / "features").glob("*.npy"))


def test_a_finished_cell_is_not_made_again(run, capsys, monkeypatch):
    calls = []
    linear = protocols.linear
    monkeypatch.setattr("sslkit.data.datasets._fetch", lambda *_: "no network")
    monkeypatch.setattr(protocols, "linear", lambda *a, **k: calls.append(1) or linear(*a, **k))
    for argv, made in ((ARGV, 1), (ARGV, 1), ([*ARGV, "--again"], 2)):
        assert main(argv) == 0
        assert len(calls) == made
    assert main([*ARGV[:-1], "retrieval"]) == 0
    kept = json.loads((run / "evaluation" / "oxford_pets.json").read_text())
    assert list(kept["protocols"]) == ["linear", "retrieval"]
    export_backbone(ResNet9(4), run / "backbone.safetensors", {"size": 16, "normalize": "half"})
    assert main(ARGV) == 0
    assert len(calls) == 3
    now = json.loads((run / "evaluation" / "oxford_pets.json").read_text())
    assert list(now["protocols"]) == ["linear"]  # none of other weights
    assert now["weights_fingerprint"] != kept["weights_fingerprint"]
    earlier = run / "evaluation" / "earlier" / "oxford_pets.json"
    assert json.loads(earlier.read_text()) == kept  # and none of them is lost


def test_a_score_of_another_device_stays(run, monkeypatch):
    """Fingerprints cover the kind of device: what one has scored, the other does not delete."""
    from sslkit.evaluation import suite

    monkeypatch.setattr("sslkit.data.datasets._fetch", lambda *_: "no network")
    assert main(ARGV) == 0
    true = suite.fingerprint

    def elsewhere(backbone, dataset, view, *, device):
        """As a GPU's: of images another one, of the weights alone the same."""
        return true(backbone, dataset, view, device=device) + "x" * (len(dataset) > 1)

    monkeypatch.setattr(suite, "fingerprint", elsewhere)
    assert main([*ARGV[:-1], "retrieval"]) == 0
    kept = json.loads((run / "evaluation" / "oxford_pets.json").read_text())["protocols"]
    assert list(kept) == ["linear", "retrieval"]
    assert kept["linear"]["fingerprints"] != kept["retrieval"]["fingerprints"]


def test_a_failed_cell_is_said_and_the_others_are_kept(run, capsys, monkeypatch):
    monkeypatch.setattr("sslkit.data.datasets._fetch", lambda *_: "no network")
    assert main([*ARGV, "knn"]) == 1
    said = capsys.readouterr().out
    assert "failed" in said
    assert "k = 200 is above the 24 features there are" in said
    kept = json.loads((run / "evaluation" / "oxford_pets.json").read_text())
    assert list(kept["protocols"]) == ["linear"]
    (run.parent / "data" / "oxford-iiit-pet" / "images" / "cat_12.jpg").write_text("junk")
    assert main([*ARGV, "knn", "--again"]) == 1
    assert "cannot read the image" in capsys.readouterr().out
    assert main([*ARGV, "--again"]) == 1
    assert json.loads((run / "evaluation" / "oxford_pets.json").read_text()) == kept


def test_two_processes_share_the_images(run):
    """The features of both are those of one process; the first alone writes."""
    command = [sys.executable, "-m", "sslkit", *ARGV[:2], "--data", "oxford_pets", *ARGV[4:]]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    found = []
    for out, argv in (("one", command), ("two", [sys.executable, *launch, *command[1:]])):
        done = subprocess.run(
            [*argv, "--out", out, "--cache", f"{out}-features"],
            cwd=run.parent,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Linear evaluation") == 2  # the table's block and its note
        result = json.loads(Path(run.parent, out, "a-oxford_pets.json").read_text())
        del result["protocols"]["linear"]["seconds"]
        files = sorted(Path(run.parent, f"{out}-features").glob("*.npy"))
        found.append((result, [(path.name, path.read_bytes()) for path in files]))
    assert found[0] == found[1]
