"""``sslkit evaluate``: scores of backbones as a table, as files, in the run's dashboard."""

import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from os import environ
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from sslkit.cli.evaluate_options import SUITES, parsed_options
from sslkit.cli.score_files import draw, read_scores, save_scores
from sslkit.cli.scored_targets import ScoredTarget, layers_of, load_targets
from sslkit.cli.targets import device_of
from sslkit.dashboard import log_evaluation, transfer_chart, write_report
from sslkit.evaluation import Protocol, evaluate_layers, protocols_of, transfer_table
from sslkit.evaluation.processes import rank
from sslkit.evaluation.protocols import check_suits
from sslkit.evaluation.suite import AtHand


def run(argv: list[str]) -> int:
    """Evaluate; returns the exit code: 1 if a suite has a cell that failed."""
    args = parsed_options(argv)
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
    for name in data:
        check_suits(name, protocols)
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
    loaded = load_targets(targets, layers)
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
            of_target, pictures = [], []
            for name in data:
                bar.set_postfix_str(f"{target.name} on {name}")
                found = _of_set(target, name, protocols, layers, out, again, options, bar)
                of_target += found[0]
                pictures += found[1]
            results += of_target
            _tell(target, of_target, pictures, out)
    return results


def _of_set(
    target: ScoredTarget,
    data: str,
    protocols: Sequence[Protocol],
    layers: list[str] | None,
    out: str | None,
    again: bool,
    options: dict[str, Any],
    bar: tqdm,
) -> tuple[list[dict[str, Any]], list[Path]]:
    """The results of a target on a data set, one a layer, and the pictures that were drawn."""
    chosen = layers_of(layers, target.backbone) if layers else None
    paths = {x: target.path(data, options["limit"], x, out) for x in chosen or [None]}

    def keep(result: dict[str, Any], protocol: str) -> None:
        path = paths[result.get("layer")]
        if path and result["protocols"]:
            save_scores(path, {**target.about, **result})
        bar.update(1 / len(paths))

    there = [path for path in paths.values() if path and path.exists()]
    before = [] if again else list(map(read_scores, there))
    pictures: list[Path] = []

    def show(result: dict[str, Any], protocol: str, images: Any, features: AtHand) -> None:
        path = paths[result.get("layer")]
        if protocol == "retrieval" and path:
            made = result["protocols"][protocol] not in [
                earlier["protocols"].get(protocol) for earlier in before
            ]
            pictures.extend(draw(path, images, features, anew=made))

    found = evaluate_layers(
        target.backbone,
        target.view,
        data,
        protocols,
        layers=chosen,
        before=before,
        keep=keep,
        show=show,
        distributed=_processes_started() > 1,
        **options,
    )
    return [{**target.about, **result} for result in found], pictures


def _tell(
    target: ScoredTarget, results: list[dict[str, Any]], pictures: list[Path], out: str | None
) -> None:
    """Put a target's scores on its dashboard and into its report."""
    if rank() > 0:
        return
    if target.folder and target.name != "random":
        log_evaluation(target.folder, results, pictures)
    if target.folder and not out:
        write_report(target.folder)
    if not target.folder and not out:
        text = f"the scores of {target.name} are in no file: --out DIR keeps them"
        print(text, file=sys.stderr)


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
