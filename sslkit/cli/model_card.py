"""The model card of an exported backbone: what it is, how to load it, what it scored."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from sslkit.backbones import Backbone, ResNet, Timm, title_of
from sslkit.dashboard.wandb_run import _without_secrets
from sslkit.evaluation.entries import Entry, metric_title, protocol_title, transfer_entries
from sslkit.views import EvaluationView

PACKAGES = ("sslkit", "torch", "torchvision", "timm", "safetensors")
LOCAL = ("name", "out", "wandb")  # of a config: where it ran, not what


def model_card(
    name: str,
    backbone: Backbone,
    card: Mapping[str, Any],
    *,
    config: Mapping[str, Any] | None = None,
    results: Sequence[Mapping[str, Any]] = (),
    checks: Mapping[str, str],
) -> str:
    """The text of ``README.md``, in Markdown.

    Args:
        name: of the run.
        card: what ``load_backbone`` says of the backbone.
        config: that of the run; what is named like a secret, and where it ran, is left out.
        results: evaluations of the run, in any form that sslkit has written; those of another
            step than the card's are only counted.
        checks: of each exported file, how it compares.

    >>> from sslkit.backbones import ResNet9
    >>> text = model_card("x", ResNet9(2), {"size": 32, "normalize": None}, checks={})
    >>> text.splitlines()[0], "| features | 16 |" in text
    ('# x', True)
    """
    size = card["size"]
    view = EvaluationView(size, card["normalize"], grayscale=card.get("grayscale", False))
    about = {
        "architecture": title_of(backbone),
        "features": backbone.feature_dim,
        "method": card.get("method"),
        "data": _data(card, config or {}),
        "images": f"{size} x {size} pixels",
        "steps": card.get("step"),
        "commit": card.get("commit"),
        "exported with": ", ".join(
            [f"{package} {version(package)}" for package in PACKAGES]
            + [f"Python {platform.python_version()}"]
        ),
        **{f"`{file}`" if "." in file else file: said for file, said in checks.items()},
    }
    facts = [[key, "not recorded" if value is None else value] for key, value in about.items()]
    parts = [
        f"# {name}",
        "A backbone that was trained by sslkit, without its head.",
        _table(["", ""], facts),
        f"## Images\n\n{_preparation(view)}",
        f"## Loading\n\n{_loading(backbone, size, onnx='backbone.onnx' in checks)}",
        f"## Scores\n\n{_scores(results, card.get('step'))}",
    ]
    if config:
        shown = {key: value for key, value in config.items() if key not in LOCAL}
        if isinstance(shown.get("data"), dict):
            shown["data"] = {k: v for k, v in shown["data"].items() if k != "root"}
        text = yaml.safe_dump(_without_secrets(shown), sort_keys=False)
        parts.append(f"## Configuration\n\n```yaml\n{text}```")
    return "\n\n".join(parts) + "\n"


def read_results(run: Path) -> list[dict[str, Any]]:
    """What ``sslkit evaluate`` left in a run folder; files that are none of its are passed over.

    Raises:
        ValueError: a file that is no JSON.

    >>> read_results(Path("runs/none"))
    []
    """
    results = []
    for path in sorted((run / "evaluation").glob("*.json")):
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}; move it away") from error
        found = found if isinstance(found, list) else [found]
        needed = {"target", "data", "protocols"}
        results += [one for one in found if isinstance(one, dict) and needed <= one.keys()]
    return results


def _data(card: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The set that was trained on, and which part of it."""
    given = config.get("data") or {}
    name = card.get("data") or given.get("name")
    parts = [name, f"split {given['split']}" if given.get("split") else None]
    parts.append(f"the first {given['limit']:,} images" if given.get("limit") else None)
    return ", ".join(filter(None, parts)) or None


def _preparation(view: EvaluationView) -> str:
    """How an image becomes an input."""
    steps = [
        "RGB in [0, 1]",
        f"the shorter side resized to {view.size} pixels, antialiased bicubic",
    ]
    steps.append("its centre cropped")
    if view.grayscale:
        steps.append("in all three channels the grey of the same Lab lightness")
    if view.statistics:
        mean, std = (", ".join(f"{x:g}" for x in part) for part in view.statistics)
        steps.append(f"by channel, minus the mean ({mean}), divided by the deviation ({std})")
    else:
        steps.append("no mean taken off, no deviation divided out")
    grey = ", grayscale=True" if view.grayscale else ""
    call = f"EvaluationView({view.size}, {view.normalize!r}{grey})"
    return f"{'; '.join(steps)}. `{call}` of `sslkit.views` does it. The input of ONNX is the same."


LOAD = """\
model.load_state_dict(load_file("backbone.safetensors"))
features = model.eval()(images)"""
TORCHVISION = """\
import torch
import torchvision
from safetensors.torch import load_file

model = torchvision.models.{name}()
model.fc = torch.nn.Identity()
"""
CIFAR_STEM = """\
model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
model.maxpool = torch.nn.Identity()
"""
TIMM = """\
import timm
from safetensors.torch import load_file

model = timm.create_model("{name}", num_classes=0{options})
"""
SSLKIT = """\
from sslkit.training import load_backbone

backbone, card = load_backbone("backbone.safetensors")
features = backbone.eval()(images)"""
ONNX = """\
import onnxruntime

session = onnxruntime.InferenceSession("backbone.onnx")
(features,) = session.run(None, {"images": images})"""


def _loading(backbone: Backbone, size: int, *, onnx: bool) -> str:
    """Code by which each library loads the files that lie beside the card."""
    by = {}
    if type(backbone) is ResNet:
        stem = CIFAR_STEM if backbone.stem == "cifar" else ""
        by["torchvision"] = TORCHVISION.format(name=backbone.name) + stem + LOAD
    if type(backbone) is Timm:
        options = "".join(f", {key}={value!r}" for key, value in backbone.options.items())
        by["timm"] = TIMM.format(name=backbone.name, options=options) + LOAD
    by["sslkit, with `backbone.json` beside the file"] = SSLKIT
    if onnx:
        by["onnxruntime, where images are a NumPy array"] = ONNX
    blocks = [f"By {library}:\n\n```python\n{code}\n```" for library, code in by.items()]
    about = f"`images` are prepared as above, float32 (N, 3, {size}, {size}), of any number N."
    return "\n\n".join([about, *blocks])


def _scores(results: Sequence[Mapping[str, Any]], step: int | None) -> str:
    """A row a score, or why there is none."""
    random = [result.get("weights", result["target"]) == "random" for result in results]
    steps = [None if fresh else r.get("step") for r, fresh in zip(results, random, strict=True)]
    rows, stale = [], 0
    for result, fresh, of in zip(results, random, steps, strict=True):
        if None not in (of, step) and of != step:
            stale += 1
            continue
        for entry in transfer_entries([result], published=False):
            weights = "random" if fresh else "trained"
            rows.append([*_described(entry), weights, result.get("layer") or "features"])
    rows.sort(key=lambda row: (row[0], row[1], row[-1], row[-2] == "random"))
    left_out = f"Left out, being of another step: {stale} evaluations." if stale else ""
    if not rows:
        return left_out or "Not evaluated yet."
    head = ["data", "protocol", "metric", "score", "training images", "notes", "weights", "of"]
    text = "In percent, on test images. Each protocol is named by its version and a hash of its "
    return "\n\n".join(filter(None, [f"{text}parameters.", _table(head, rows), left_out]))


def _described(entry: Entry) -> list[str]:
    images = "" if entry.n_train is None else f"{entry.n_train:,}"
    named = protocol_title(entry.protocol)
    named += f" (`{entry.protocol_id}`)" if entry.protocol_id else ""
    title = f"{entry.title} ({entry.differs})" if entry.differs else entry.title
    why = entry.note if entry.status == "failed" else ""  # where a set was looked for is local
    notes = "; ".join(filter(None, [entry.cut and f"cut: {entry.cut}", why]))
    return [title, named, metric_title(entry.metric), entry.text, images, notes]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
