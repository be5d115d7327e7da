"""``sslkit evaluate``: scores of backbones as a table, as files, in the run's dashboard."""

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from os import environ
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jsonargparse import ArgumentParser
from tqdm import tqdm

from sslkit.backbones import Backbone, title_of
from sslkit.cli.config import one_line
from sslkit.cli.targets import (
    device_of,
    file_name,
    load_target,
    seed_of,
    weights_of,
)
from sslkit.dashboard import log_evaluation, transfer_chart, write_report
from sslkit.evaluation import (
    PROTOCOLS,
    Protocol,
    check_layers,
    evaluate_layers,
    protocols_of,
    transfer_table,
)
from sslkit.evaluation.processes import rank
from sslkit.evaluation.published import SIMCLR12
from sslkit.training import write_atomically
from sslkit.views import EvaluationView

SUITES = {"simclr12": tuple(SIMCLR12)}


def run(argv: list[str]) -> int:
    """Evaluate; returns the exit code: 1 if a suite has a cell that failed."""
    args = _parse(argv)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(args)
    except KeyboardInterrupt:
        print("\nstopped; finished scores are kept: the same command goes on", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(args: Any) -> int:
    data = list(SUITES[args.suite]) if args.suite else args.data
    protocols = protocols_of(args.protocol, steps=args.steps, grid=args.grid)
    options = {
        key: getattr(args, key) for key in ("root", "limit", "out", "cache", "again", "suite")
    }
    with _processes(args.device) as device:
        results = score(args.targets, data, protocols, layers=args.layer, device=device, **options)
        if rank() > 0:
            return 0
    layout = {"columns": data if args.suite else (), "published": bool(args.suite)}
    table = transfer_table(results, **layout)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(table.markdown(width))
    folders = [Path(t) / "evaluation" for t in args.targets if Path(t).is_dir()]
    if place := [Path(args.out)] if args.out else folders[:1]:
        stem = place[0] / "table" / (args.suite or "table")
        stem.parent.mkdir(parents=True, exist_ok=True)
        written = [*table.save(stem.parent, stem.name)]
        written.append(transfer_chart(results, stem.with_suffix(".png"), **layout))
        print(f"table: {stem} ({', '.join(path.suffix for path in written)})", file=sys.stderr)
    return int(any(result["failed"] for result in results))


def score(
    targets: list[str],
    data: list[str],
    protocols: Sequence[Protocol],
    *,
    layers: list[str] | None = None,
    root: str | None = None,
    limit: int | None = None,
    device: str | None = None,
    out: str | None = None,
    cache: str | None = None,
    again: bool = False,
    suite: str | None = None,
) -> list[dict[str, Any]]:
    """Every target on every data set; each score goes to its file as soon as it is there.

    Of ``layers``, names or "all", where they are given; else of the features. A score that is in
    its file, of the same protocol, weights and images, is not made again, unless ``again``. In a
    ``suite`` a set that is absent or cannot be scored is said so in its result.
    """
    device = device_of(device)
    loaded = _loaded(targets, layers)
    results = []
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
    cells = len(loaded) * len(data) * len(protocols)
    trains = any(protocol.images for protocol in protocols)
    with tqdm(total=cells, desc="cells", unit="cell", disable=_quiet(cells), delay=2) as bar:
        for target in loaded:
            target.backbone.to(device)
            options = {"root": root, "limit": limit, "device": device, "failures": bool(suite)}
            options["cache"] = _cache(cache, target.folder, bool(suite) or trains)
            of_target = []
            for name in data:
                bar.set_postfix_str(f"{target.name} on {name}")
                of_target += _of_set(target, name, protocols, layers, out, again, options, bar)
            results += of_target
            _tell(target, of_target, out)
    return results


@dataclass
class _Target:
    """A backbone to score, and where its scores go: a run's folder, or with ``out`` by title."""

    name: str
    backbone: Backbone
    card: dict[str, Any]
    folder: Path | None
    title: str

    @property
    def about(self) -> dict[str, Any]:
        return {
            "target": self.name,
            "backbone": title_of(self.backbone),
            "weights": weights_of(self.name),
            "step": self.card.get("step") if self.name != "random" else None,
        }

    @property
    def view(self) -> EvaluationView:
        grayscale = self.card.get("grayscale", False)
        return EvaluationView(self.card["size"], self.card["normalize"], grayscale=grayscale)

    def path(self, data: str, limit: int | None, layer: str | None, out: str | None) -> Path | None:
        """Where the result of a data set goes; None for what is only printed."""
        stem = file_name(data) + ("" if limit is None else f"-limit{limit}")
        stem += f"-{file_name(layer)}" if layer else ""
        if out:
            return Path(out) / f"{self.title}-{stem}.json"
        random = "-random" if self.name == "random" else ""
        return self.folder / "evaluation" / f"{stem}{random}.json" if self.folder else None


def _loaded(targets: list[str], layers: list[str] | None) -> list[_Target]:
    """All of them before the first is scored; 'random' belongs to the target before it."""
    loaded: list[_Target] = []
    last, folder, trained = None, None, ""
    for name in targets:
        last = load_target(name, last, seed=seed_of(folder))
        check_layers(last[0], _named(layers, last[0]))
        if name != "random":
            folder, trained = Path(name) if Path(name).is_dir() else None, f"{name}-"
        title = file_name(f"{trained}random" if name == "random" else name)
        loaded.append(_Target(name, *last, folder, title))
    return loaded


def _of_set(
    target: _Target,
    data: str,
    protocols: Sequence[Protocol],
    layers: list[str] | None,
    out: str | None,
    again: bool,
    options: dict[str, Any],
    bar: tqdm,
) -> list[dict[str, Any]]:
    """The results of a target on a data set, one a layer."""
    chosen = _named(layers, target.backbone) if layers else None
    paths = {x: target.path(data, options["limit"], x, out) for x in chosen or [None]}

    def keep(result: dict[str, Any], protocol: str) -> None:
        path = paths[result.get("layer")]
        if path and result["protocols"]:
            _save(path, {**target.about, **result})
        bar.update(1 / len(paths))

    before = [] if again else [_read(path) for path in paths.values() if path and path.exists()]
    found = evaluate_layers(
        target.backbone,
        target.view,
        data,
        protocols,
        layers=chosen,
        before=before,
        keep=keep,
        distributed=_processes_started() > 1,
        **options,
    )
    return [{**target.about, **result} for result in found]


def _tell(target: _Target, results: list[dict[str, Any]], out: str | None) -> None:
    """Put a target's scores on its dashboard and into its report."""
    if rank() > 0:
        return
    if target.folder and target.name != "random":
        log_evaluation(target.folder, results)
    if target.folder and not out:
        write_report(target.folder)
    if not target.folder and not out:
        text = f"the scores of {target.name} are in no file: --out DIR keeps them"
        print(text, file=sys.stderr)


def _read(path: Path) -> dict[str, Any]:
    try:
        before = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}; move it away") from error
    if not isinstance(before, dict) or not isinstance(before.get("protocols"), dict):
        raise ValueError(f"{path} holds no scores: move it away")
    return before


def _save(path: Path, result: dict[str, Any]) -> None:
    """Write a result; other scores of the same weights and images stay in its file.

    A file of others, say of an earlier step, is moved into ``earlier/``: no score is lost.
    """
    keys = ("target", "backbone", "weights_fingerprint", "n_train", "n_test", "differs")
    if path.exists():
        before = _read(path)
        if all(before.get(key) == result.get(key) for key in keys):
            result = {**result, "protocols": before["protocols"] | result["protocols"]}
        else:
            aside, n = path.parent / "earlier" / path.name, 1
            while aside.exists():
                n += 1
                aside = aside.with_name(f"{path.stem}-{n}.json")
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode())


def _parse(argv: list[str]) -> Any:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("targets", nargs="+", type=str)
    parser.add_argument("--data", nargs="+", type=str, default=None)
    parser.add_argument("--suite", type=str | None, default=None)
    parser.add_argument("--protocol", nargs="+", type=str, default=["knn", "linear"])
    parser.add_argument("--steps", type=int | None, default=None)
    parser.add_argument("--grid", type=str | None, default=None)
    parser.add_argument("--layer", nargs="+", type=str, default=None)
    parser.add_argument("--root", type=str | None, default=None)
    parser.add_argument("--limit", type=int | None, default=None)
    parser.add_argument("--device", type=str | None, default=None)
    parser.add_argument("--out", type=str | None, default=None)
    parser.add_argument("--cache", type=str | None, default=None)
    parser.add_argument("--again", action="store_true")
    try:
        args = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(f"{one_line(str(error))} ('sslkit evaluate --help' says more)") from None
    if (args.data is None) == (args.suite is None):
        given = "both were given" if args.data else "neither was given"
        raise ValueError(
            f"--data NAME [NAME ...] or --suite simclr12 says what to score on: {given}"
        )
    if args.suite is not None and args.suite not in SUITES:
        raise ValueError(f"no suite named {args.suite!r}; choose from {', '.join(SUITES)}")
    for name in ("limit", "steps"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    args.grid = _grid(args.grid)
    if (args.steps or args.grid) and not any(
        "recipe" in PROTOCOLS[name].parameters for name in args.protocol if name in PROTOCOLS
    ):
        raise ValueError("--steps and --grid cut what trains: finetune, semi1 or semi10")
    return args


def _grid(text: str | None) -> tuple[int, int] | None:
    """3x4 as 3 learning rates by 4 weight decays."""
    parts = text.split("x") if text else []
    if text is None:
        return None
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--grid is learning rates by weight decays, such as 3x4, not {text!r}")
    return int(parts[0]), int(parts[1])


def _named(layers: list[str] | None, backbone: Backbone) -> list[str]:
    """The layers asked for, in the backbone's order where that is all of them."""
    return list(backbone.layers) if layers == ["all"] else list(dict.fromkeys(layers or []))


def _cache(cache: str | None, folder: Path | None, long: bool) -> str | Path | None:
    """Where features and points of grids are kept: by default of what takes long."""
    if cache is not None or not long:
        return None if cache == "off" else cache
    return folder / "evaluation" / "features" if folder else "~/.cache/sslkit/features"


def _quiet(cells: int) -> bool | None:
    """Whether to draw no bar: where it would say nothing, or in a process that is not the first."""
    return True if cells < 2 or rank() > 0 else None


def _processes_started() -> int:
    """Processes that a launcher such as torchrun started."""
    return int(environ.get("WORLD_SIZE", "1"))


@contextmanager
def _processes(device: str | None) -> Iterator[str | None]:
    """The device of this process, which joins the others that a launcher started."""
    if _processes_started() == 1:
        yield device
        return
    cuda = torch.cuda.is_available() and (device or "cuda").startswith("cuda")
    if cuda:
        device = f"cuda:{environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    # While the first fits and fine-tunes, the others wait.
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(days=14))
    try:
        yield device
    finally:
        dist.destroy_process_group()
