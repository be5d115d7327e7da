import json
import re

import pytest
import torch
import yaml

from sslkit.backbones import ResNet, ResNet9, Timm
from sslkit.cli import export
from sslkit.cli.model_card import model_card, read_results
from sslkit.training import export_backbone, load_backbone

CARD = {"size": 32, "normalize": "half", "method": "SimCLR", "step": 8, "commit": "abc1234"}
CONFIG = {
    "seed_everything": 3,
    "model": {"class_path": "sslkit.methods.SimCLR", "init_args": {"temperature": 0.2}},
    "data": {"name": "shapes", "root": "/home/me/data", "split": "train", "limit": 5000},
    "hub": {"WANDB_API_KEY": "s3cret", "token": "t0ken"},
    "out": "/home/me/runs",
    "wandb": "auto",
}


def scored(data, step=8, **more):
    return {"target": "/home/me/runs/x", "weights": "trained", "step": step, "data": data} | more


RESULTS = {
    "old": scored(
        "cifar10", protocols={"knn": {"accuracy": 81.26, "accuracy_k20": 80.0}}, n_train=9
    ),
    "old-random": {
        "target": "random",
        "data": "cifar10",
        "protocols": {"knn": {"accuracy": 31.0}},
        "n_train": 9,
    },
    "stale": scored("stl10", step=4, protocols={"knn": {"accuracy": 12.0}}, n_train=9),
    "flowers102": scored(
        "flowers102",
        title="Flowers-102",
        metric="mean_per_class",
        differs="16 a class",
        n_train=2040,
        protocols={
            "linear": {
                "protocol": "linear/2:1a2b3c4d",
                "metric": "mean_per_class",
                "mean_per_class": 91.23,
                "cut": "200 steps",
            }
        },
        failed={"finetune": "out | of memory"},
    ),
    "dtd": scored("dtd", title="DTD", protocols={}, absent="dtd is not at /home/me/data/dtd"),
}


def make_run(folder, backbone):
    run = folder / "x"
    run.mkdir()
    export_backbone(backbone, run / "backbone.safetensors", CARD)
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (run / "evaluation").mkdir()
    for name, result in RESULTS.items():
        (run / "evaluation" / f"{name}.json").write_text(json.dumps(result))
    (run / "evaluation" / "other.json").write_text('["another program\'s"]')
    return run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, ResNet9(2))


def features_of(code, images):
    """What the code of the model card computes, from the files in the current folder."""
    names = {"images": images}
    with torch.no_grad():
        exec(code, names)
    return torch.as_tensor(names["features"])


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: ResNet("resnet18", stem="cifar"),
        lambda: ResNet("resnet18"),
        lambda: Timm("vit_tiny_patch16_224", options={"img_size": 32, "depth": 1}),
    ],
)
def test_the_code_of_the_model_card_gives_the_features_of_the_run(
    backbone, tmp_path, capsys, monkeypatch
):
    run = make_run(tmp_path, backbone())
    assert export.run([str(run), "--no_onnx"]) == 0
    out = run / "export"
    files = ["README.md", "backbone.json", "backbone.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == files
    assert f"{out}/backbone.safetensors: features in t" in capsys.readouterr().err
    monkeypatch.chdir(out)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = load_backbone(run)[0].eval()(images)
    blocks = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    assert "sslkit" not in blocks[0]
    for block in blocks:
        assert torch.equal(features_of(block, images), expected)


def test_onnx_too(run, capsys, monkeypatch):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    assert export.run([str(run)]) == 0
    said = capsys.readouterr().err
    assert re.search(r"backbone\.onnx: features in onnxruntime (within|equal)", said)
    monkeypatch.chdir(run / "export")
    text = (run / "export" / "README.md").read_text()
    *_, block = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = load_backbone(run)[0].eval()(images)
    torch.testing.assert_close(features_of(block, images.numpy()), expected, rtol=1e-4, atol=1e-5)
    # What another export leaves out is not to stay beside other weights.
    assert export.run([str(run), "--no_onnx", "--overwrite"]) == 0
    assert not (run / "export" / "backbone.onnx").exists()


def test_the_model_card_says_what_it_is_and_what_it_scored(run):
    export.run([str(run), "--no_onnx"])
    text = (run / "export" / "README.md").read_text()
    for line in (
        "# x",
        "| architecture | ResNet9(width=2) |",
        "| method | SimCLR |",
        "| data | shapes, split train, the first 5,000 images |",
        "| steps | 8 |",
        "| commit | abc1234 |",
        "| `backbone.safetensors` | features in sslkit equal to the last bit |",
        "| CIFAR-10 | kNN | top-1 | 81.3 | 9 |  | trained | features |",
        "| CIFAR-10 | kNN | top-1 | 31.0 | 9 |  | random | features |",
        "| Flowers-102 (16 a class) | Linear evaluation (`linear/2:1a2b3c4d`) | mean per class "
        "| 91.2 | 2,040 | cut: 200 steps | trained | features |",
        "| Flowers-102 (16 a class) | Fine-tuned | mean per class | failed | 2,040 "
        "| out \\| of memory | trained | features |",
        "Left out, being of another step: 1 evaluations.",
    ):
        assert line in text.splitlines()
    assert re.search(r"^\| DTD \|.*\| absent \|", text, re.MULTILINE)
    assert "minus the mean (0.5, 0.5, 0.5), divided by the deviation (0.5, 0.5, 0.5)" in text
    assert "temperature: 0.2" in text


def test_nothing_secret_or_local_is_in_the_export(run):
    export.run([str(run), "--no_onnx"])
    for path in (run / "export").iterdir():
        content = path.read_bytes()
        for word in (b"s3cret", b"t0ken", b"/home/me"):
            assert word not in content


def test_what_is_there_stays_unless_it_is_to_be_replaced(run, tmp_path):
    out = tmp_path / "given"
    argv = [str(run), "--no_onnx", f"--out={out}"]
    assert export.run(argv) == 0
    before = (out / "backbone.safetensors").read_bytes()
    (out / "notes.txt").write_text("mine")
    export_backbone(ResNet9(2), run / "backbone.safetensors", CARD)
    said = r"given holds backbone\.json, backbone\.safetensors, README\.md.*--overwrite"
    with pytest.raises(ValueError, match=said):
        export.run(argv)
    assert (out / "backbone.safetensors").read_bytes() == before
    assert export.run([*argv, "--overwrite"]) == 0
    assert (out / "backbone.safetensors").read_bytes() != before
    assert (out / "notes.txt").read_text() == "mine"


def test_a_failed_check_leaves_nothing(run, monkeypatch):
    def differ(*_):
        raise ValueError("its features differ")

    monkeypatch.setattr(export, "check_weights", differ)
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match="differ"):
        export.run([str(run), "--no_onnx"])
    assert sorted(run.rglob("*")) == before


def test_a_checkpoint_needs_a_folder_and_brings_its_config(tmp_path):
    path = tmp_path / "last.ckpt"
    backbone = ResNet9(2)
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    description = {"class_path": "sslkit.backbones.ResNet9", "init_args": {"width": 2}}
    card = {**CARD, "backbone": description, "config": CONFIG, "seed": 3, "world_size": 1}
    torch.save({"sslkit": card, "state_dict": state, "global_step": 9}, path)
    with pytest.raises(ValueError, match="is no run folder: --out DIR"):
        export.run([str(path), "--no_onnx"])
    assert export.run([str(path), "--no_onnx", "--out", str(tmp_path / "e")]) == 0
    kept = json.loads((tmp_path / "e" / "backbone.json").read_text())
    assert (kept["data"], kept["step"], "config" in kept) == ("shapes", 9, False)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["runs/none", "--no_onnx"], "no run folder"),
        (["runs/none", "--no_onx"], "no_onx"),
        ([], "run"),
    ],
)
def test_bad_input(argv, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        export.run(argv)


def test_a_damaged_evaluation_and_a_file_for_a_folder(run, tmp_path):
    with pytest.raises(ValueError, match="is a file, not a folder"):
        export.run([str(run), "--no_onnx", "--out", str(run / "config.yaml")])
    (run / "evaluation" / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is no JSON"):
        export.run([str(run), "--no_onnx"])
    assert not (run / "export").exists()


def test_a_card_of_little(tmp_path):
    card = {"size": 48, "normalize": None, "grayscale": True}
    text = model_card("x", ResNet9(2), card, results=read_results(tmp_path), checks={})
    assert "| steps | not recorded |" in text
    assert "Not evaluated yet." in text
    assert "the grey of the same Lab lightness" in text
    assert "`EvaluationView(48, None, grayscale=True)`" in text
    assert "Configuration" not in text
