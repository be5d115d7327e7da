"""``sslkit export``: a run's backbone for other libraries, each file checked as it is written."""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from sslkit.backbones import Backbone
from sslkit.cli.config import one_line
from sslkit.cli.model_card import model_card, read_results
from sslkit.training import export_backbone, load_backbone, write_atomically
from sslkit.training.export import check_onnx, check_weights, export_onnx, require_onnx
from sslkit.views import EvaluationView

FILES = ("backbone.json", "backbone.safetensors", "backbone.onnx", "README.md")
KEPT = ("size", "normalize", "grayscale", "method", "data", "step", "commit")  # of the card
IMAGES = 5  # random ones, that outputs are compared on


def run(argv: list[str]) -> int:
    """Export; returns the exit code."""
    args = _parse(argv)
    target = Path(args.run)
    if target.is_file() and args.out is None:
        raise ValueError(f"{target} is no run folder: --out DIR says where its export is to go")
    out = Path(args.out or target / "export")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file, not a folder")
    there = [name for name in FILES if (out / name).exists()]
    if there and not args.overwrite:
        raise ValueError(
            f"{out} holds {', '.join(there)}: give another --out, or --overwrite to replace it"
        )
    if not args.no_onnx:
        require_onnx()
    backbone, card = load_backbone(target)
    said = export(backbone, card, target, out, onnx=not args.no_onnx)
    for name, check in said.items():
        print(f"{out / name}: {check}", file=sys.stderr)
    return 0


def export(
    backbone: Backbone, card: dict[str, Any], run: Path, out: Path, *, onnx: bool
) -> dict[str, str]:
    """Write everything beside ``out``, check it there, and only then move it in.

    Returns:
        How each file of weights compares with the backbone.
    """
    config = run / "config.yaml"
    config = yaml.safe_load(config.read_text()) if config.is_file() else card.get("config") or {}
    card = {"data": (config.get("data") or {}).get("name"), **card}
    kept = {key: card[key] for key in KEPT if card.get(key) is not None or key == "normalize"}
    view = EvaluationView(card["size"], card["normalize"])
    shape = (IMAGES, 3, view.size, view.size)
    images = view(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
        weights, graph = Path(folder, "backbone.safetensors"), Path(folder, "backbone.onnx")
        export_backbone(backbone, weights, kept)
        said = {weights.name: check_weights(weights, backbone, images)}
        if onnx:
            mean, std = view.statistics or ((0.0,) * 3, (1.0,) * 3)
            about = {"mean": str(list(mean)), "std": str(list(std)), "size": str(view.size)}
            export_onnx(backbone, graph, view.size, about)
            said[graph.name] = check_onnx(graph, backbone, images)
        name = run.resolve().name
        text = model_card(
            name, backbone, card, config=config, results=read_results(run), checks=said
        )
        write_atomically(Path(folder, "README.md"), text.encode())
        out.mkdir(exist_ok=True)
        for name in FILES:
            if Path(folder, name).exists():
                os.replace(Path(folder, name), out / name)
            else:  # of an earlier export, and of other weights
                (out / name).unlink(missing_ok=True)
    return {**said, "README.md": "the model card"}


def _parse(argv: list[str]) -> Any:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("run", type=str)
    parser.add_argument("--out", type=str | None, default=None)
    parser.add_argument("--no_onnx", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    try:
        return parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(f"{one_line(str(error))} ('sslkit export --help' says more)") from None
