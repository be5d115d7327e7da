"""Every method at one budget, layer by layer, beside random weights: eval/results/methods.json.

    python eval/methods.py --seeds 0 1 2

Each config below is pretrained on the same first training images of CIFAR-10 for as many epochs,
with the backbone that all of them share; then every layer is scored on the whole of CIFAR-10. What
is done is not done again, as in `eval/measure.py`, and methods that are not asked for stay in the
record. `python eval/tables.py` puts it into the README.
"""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from measure import pretrained, sslkit
from records import RESULTS

from sslkit.training import load_backbone

METHODS = {
    "rotation": "rotation_cifar10_cpu",
    "relative position": "relative_position_cifar10_cpu",
    "jigsaw": "jigsaw_cifar10_cpu",
    "colorization": "colorization_cifar10_cpu",
    "InstDisc": "instance_discrimination_cifar10_cpu",
    "MoCo": "moco_cifar10_cpu",
    "SimCLR": "simclr_cifar10_cpu",
    "supervised": "supervised_cifar10_cpu",
}
RANDOM = ("SimCLR", "colorization")  # beside these: the latter gives its backbone grey images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="After --: options of sslkit pretrain."
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000, help="training images")
    parser.add_argument("--data", default="cifar10", help="what is trained and scored on")
    parser.add_argument("--limit", type=int, help="training images that the scores use")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run folders go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    parser.add_argument("options", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    path = args.results / "methods.json"
    budget = {
        "data": args.data,
        "training images": args.images,
        "epochs": args.epochs,
        "training images of the scores": args.limit or "all",
        "options": args.options,
    }
    record = {"command": "", "budget": budget, "methods": {}}
    if path.exists():
        record = json.loads(path.read_text())
    if record["budget"] != budget:
        raise SystemExit(f"{path} is of another budget: move it away, or give another --results")
    methods = record["methods"]
    given = args.options
    args.options = ["--data.name", args.data, "--data.limit", str(args.images), *given]
    args.options += ["--trainer.max_epochs", str(args.epochs), "--wandb", "disabled"]
    for seed in args.seeds:
        for name in args.methods:
            args.config = METHODS[name]
            folder, kept = pretrained(args, seed)
            run = {
                "seed": seed,
                "pretraining_seconds": round(kept["seconds"]),
                "accuracy": scores(folder, args.data, args.limit, name in RANDOM),
                **{k: v for k, v in kept["began"].items() if k not in ("command", "options")},
            }
            others = [r for r in methods.get(name, []) if r["seed"] != seed]
            methods[name] = sorted([*others, run], key=lambda r: r["seed"])
            record["command"] = command(args, given, methods)
            args.results.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=2) + "\n")
    print(path)


def command(args: argparse.Namespace, options: list[str], methods: dict[str, Any]) -> str:
    """What leaves all of the record: its methods and seeds at this budget."""
    seeds = sorted({run["seed"] for runs in methods.values() for run in runs})
    words = ["python", "eval/methods.py", "--seeds", *map(str, seeds)]
    words += [] if set(methods) == set(METHODS) else ["--methods", *methods]
    words += ["--epochs", str(args.epochs), "--images", str(args.images)]
    words += [] if args.data == "cifar10" else ["--data", args.data]
    words += ["--limit", str(args.limit)] if args.limit else []
    return shlex.join([*words, *(["--", *options] if options else [])])


def scores(folder: Path, data: str, limit: int | None, random: bool) -> dict[str, dict[str, Any]]:
    """Of trained, and maybe of random weights: kNN and linear accuracy of each layer."""
    stem, bank = (f"{data}-limit{limit}", ["--limit", str(limit)]) if limit else (data, [])
    kinds = {"trained": "", "random": "-random"} if random else {"trained": ""}
    paths = {
        (kind, layer): folder / "evaluation" / f"{stem}-{layer}{suffix}.json"
        for kind, suffix in kinds.items()
        for layer in load_backbone(folder)[0].layers
    }
    if not all(path.exists() for path in paths.values()):
        targets = [str(folder), *(["random"] if random else [])]
        sslkit("evaluate", *targets, "--data", data, "--layer", "all", *bank)
    found: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
    for (kind, layer), path in paths.items():
        knn, linear = (json.loads(path.read_text())["protocols"][key] for key in ("knn", "linear"))
        found[kind][layer] = {
            "knn": knn["accuracy"],
            "linear": linear["accuracy"],
            "validation": linear["validation"],
        }
    return found


if __name__ == "__main__":
    main()
