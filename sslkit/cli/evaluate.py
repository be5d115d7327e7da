"""``sslkit evaluate``: scores of frozen backbones, as a table, as JSON, in the run's dashboard."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
import yaml
from jsonargparse import ArgumentParser

from sslkit.backbones import Backbone, Timm, build, describe
from sslkit.cli.config import one_line
from sslkit.dashboard import log_evaluation, write_report
from sslkit.data.network import answers
from sslkit.evaluation import PROTOCOLS, check_layers, evaluate, evaluate_layers, table
from sslkit.evaluation.suite import check_protocols
from sslkit.training import load_backbone, write_atomically
from sslkit.views import EvaluationView


def run(argv: list[str]) -> int:
    """Evaluate; returns the exit code."""
    args = _parse(argv)
    results = score(
        args.targets,
        args.data,
        args.protocol,
        layers=args.layer,
        root=args.root,
        limit=args.limit,
        device=args.device,
        out=args.out,
    )
    print(table(results))
    return 0


def score(
    targets: list[str],
    data: list[str],
    protocols: list[str],
    *,
    layers: list[str] | None = None,
    root: str | None = None,
    limit: int | None = None,
    device: str | None = None,
    out: str | None = None,
) -> list[dict[str, Any]]:
    """Every target on every data set; each result goes to its file as soon as it is there.

    Of ``layers``, names or "all", where they are given; else of the features.
    """
    check_protocols(protocols)
    device = _device(device)
    loaded, last, folder, trained = [], None, None, ""
    for target in targets:  # all of them before the first is scored
        last = _load(target, last, seed=_seed(folder))
        check_layers(last[0], _named(layers, last[0]))
        if target != "random":  # which belongs to the target before it
            folder, trained = Path(target) if Path(target).is_dir() else None, f"{target}-"
        name = _file_name(f"{trained}random" if target == "random" else target)
        loaded.append((target, *last, folder, name))
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
    results = []
    for target, backbone, card, folder, title in loaded:
        grayscale = card.get("grayscale", False)
        view = EvaluationView(card["size"], card["normalize"], grayscale=grayscale)
        backbone.to(device)
        of_target = []
        about = {
            "target": target,
            "backbone": _title(backbone),
            "weights": _weights(target),
            "step": card.get("step") if target != "random" else None,
        }
        options = {"root": root, "limit": limit, "device": device}
        for name in data:
            if layers:
                chosen = _named(layers, backbone)
                found = evaluate_layers(backbone, view, name, protocols, layers=chosen, **options)
            else:
                found = [evaluate(backbone, view, name, protocols, **options)]
            for result in ({**about, **scores} for scores in found):
                of_target.append(result)
                stem = name if limit is None else f"{name}-limit{limit}"
                stem += f"-{_file_name(result['layer'])}" if "layer" in result else ""
                if out:
                    _save(Path(out) / f"{title}-{stem}.json", result)
                elif folder:  # what has none is only printed
                    suffix = "-random" if target == "random" else ""
                    _save(folder / "evaluation" / f"{stem}{suffix}.json", result)
        results += of_target
        if folder and target != "random":
            log_evaluation(folder, of_target)
        if folder and not out:
            write_report(folder)
        if not folder and not out:
            print(f"the scores of {target} are in no file: --out DIR keeps them", file=sys.stderr)
    return results


def _save(path: Path, result: dict[str, Any]) -> None:
    """Write a result; other protocols of the same weights and images stay in its file."""
    if path.exists():
        try:
            before = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no JSON: {error}; move it away") from error
        keys = ("target", "backbone", "step", "n_train", "n_test")
        if all(before.get(key) == result[key] for key in keys):
            result = {**result, "protocols": before["protocols"] | result["protocols"]}
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())


def _parse(argv: list[str]) -> Any:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("targets", nargs="+", type=str)
    parser.add_argument("--data", nargs="+", type=str, required=True)
    parser.add_argument("--protocol", nargs="+", type=str, default=list(PROTOCOLS))
    parser.add_argument("--layer", nargs="+", type=str, default=None)
    parser.add_argument("--root", type=str | None, default=None)
    parser.add_argument("--limit", type=int | None, default=None)
    parser.add_argument("--device", type=str | None, default=None)
    parser.add_argument("--out", type=str | None, default=None)
    try:
        args = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(f"{one_line(str(error))} ('sslkit evaluate --help' says more)") from None
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit must be at least 1, not {args.limit}")
    return args


def _named(layers: list[str] | None, backbone: Backbone) -> list[str]:
    """The layers asked for, in the backbone's order where that is all of them."""
    return list(backbone.layers) if layers == ["all"] else list(dict.fromkeys(layers or []))


def _device(name: str | None) -> str:
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here: {reason}") from None
    return name


def _seed(folder: Path | None) -> int:
    """Of a run, which its random weights have too."""
    config = folder / "config.yaml" if folder else None
    kept = yaml.safe_load(config.read_text()) if config and config.is_file() else {}
    return int(kept.get("seed_everything") or 0)


def _load(
    target: str, before: tuple[Backbone, dict[str, Any]] | None, *, seed: int
) -> tuple[Backbone, dict[str, Any]]:
    """A backbone, and a card that says at least its size and normalisation."""
    if target == "random":
        card = {"size": 32, "normalize": "cifar10"}
        resnet = {
            "class_path": "sslkit.backbones.ResNet",
            "init_args": {"name": "resnet18", "stem": "cifar"},
        }
        torch.manual_seed(seed)
        return (build(describe(before[0])), before[1]) if before else (build(resnet), card)
    if Path(target).exists() or "/" in target or target.endswith((".ckpt", ".safetensors")):
        return load_backbone(target)
    if not timm.is_model(target):
        raise ValueError(
            f"no target {target!r}: it is neither a run folder, a checkpoint, a .safetensors file, "
            "a timm model's name nor 'random'"
        )
    if not answers(huggingface_hub.constants.ENDPOINT):
        huggingface_hub.constants.HF_HUB_OFFLINE = True  # its cache alone, and no minute of retries
    try:
        backbone = Timm(target, pretrained=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"timm's weights for {target!r} cannot be had: {reason}") from None
    config = backbone.model.pretrained_cfg
    return backbone, {
        "size": config["input_size"][-1],
        "normalize": (config["mean"], config["std"]),
    }


def _weights(target: str) -> str:
    if target == "random":
        return "random"
    return "trained" if Path(target).exists() else "timm"


def _title(backbone: Backbone) -> str:
    args = ", ".join(f"{k}={v}" for k, v in backbone.init_args().items() if v)
    return f"{type(backbone).__name__}({args})"


def _file_name(target: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in target)
