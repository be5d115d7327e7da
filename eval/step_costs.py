"""What the parts of a SimCLR step take on this machine: eval/results/step_costs.json.

    python eval/step_costs.py
    python eval/step_costs.py --width 2 --repeats 1 --results /tmp

Times, at every setting that `eval/recipe.py` tries, views and backbone, then projector and loss,
then the optimiser, each alone, forward and backward; the least of `--repeats` passes over all of
them counts. A recipe's step is the sum of its parts (`seconds`), so that recipes that compute the
same have the same number of steps in the same time. Nothing else may run meanwhile.
"""

import argparse
import itertools
import json
import math
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from records import RESULTS, at_least, provenance
from simclr_recipes import CHANGES, START, Recipe, images_a_step, simclr
from tqdm import tqdm

from sslkit.training import keep_freed_memory

PARTS = ("views and backbone", "projector and loss", "optimiser")


def seconds(recipe: Recipe, costs: dict[str, Any]) -> float:
    """What a step of a recipe takes, on average over its sizes of views.

    Raises:
        KeyError: a setting that was not timed.
    """
    *small, full = [
        _found(costs, "views and backbone", {**recipe, "size": size})
        for size in [*recipe["sizes"], 32]
    ]
    share = recipe["share"] if small else 0.0
    mean = (1 - share) * full + share * sum(small) / max(1, len(small))
    mean += sum(_found(costs, part, recipe) for part in ("projector and loss", "optimiser"))
    whole = costs["whole step"]
    ways = ["bf16"] * (recipe["precision"] == "bf16") + ["compiled"] * recipe["compiled"]
    return mean * math.prod(whole[way] / whole["eager"] for way in ways)


def _found(costs: dict[str, Any], part: str, recipe: Recipe) -> float:
    for row in costs[part]:
        if all(recipe[key] == value for key, value in row.items() if key != "seconds"):
            return row["seconds"]
    raise KeyError(f"{part} of {recipe}")


def settings() -> Iterator[tuple[str, Recipe]]:
    """The parts of all recipes that the changes can make together."""
    changes = list(itertools.chain(*CHANGES.values()))
    sizes = sorted({32}.union(*(change.get("sizes", []) for change in changes)))
    pairs = itertools.product(_values(("batch",)), _values(("views",)))
    shapes = [{**batch, **views} for batch, views in pairs]
    for size, shape in itertools.product(sizes, shapes):
        yield "views and backbone", {"size": size, **shape}
    heads, losses = _values(("hidden", "layers")), _values(("loss",))
    for shape, head, loss in itertools.product(shapes, heads, losses):
        yield "projector and loss", {**shape, **head, **loss}
    for optimizer, head in itertools.product(_values(("optimizer",)), heads):
        yield "optimiser", {**optimizer, **head}


def _values(keys: tuple[str, ...]) -> list[Recipe]:
    """What the changes make of these keys, none twice."""
    found = [{key: START[key] for key in keys}]
    for change in itertools.chain(*CHANGES.values()):
        value = {key: change.get(key, START[key]) for key in keys}
        if value not in found:
            found.append(value)
    return found


def timed(part: str, setting: Recipe, width: int) -> float:
    """Seconds of one call, after one to warm up."""
    recipe = {**START, **setting}
    method = simclr(recipe, 1.0, width).train()
    images = torch.randint(0, 256, (images_a_step(recipe), 3, 32, 32), dtype=torch.uint8)
    views, dim = recipe["views"], method.backbone.feature_dim
    if part == "optimiser":
        optimizer = method.optimizer.build(method, recipe["batch"])
        for parameter in method.parameters():
            parameter.grad = torch.randn_like(parameter)
        call: Callable[[], object] = optimizer.step
    elif part == "projector and loss":
        features = torch.randn(views * len(images), dim, requires_grad=True)

        def call() -> None:
            method.contrast(features, views).backward()
    else:
        for augment in method.view.augments:
            augment.resize(setting["size"])

        def call() -> None:
            made, _ = method.make_views(images)
            method.backbone(torch.cat(made)).square().mean().backward()

    return _second(call)


def whole(kind: str, width: int) -> float:
    """Seconds of a step of the start: eager, in bf16 or compiled."""
    torch.compiler.reset()
    method = simclr(START, 1.0, width).train()
    if kind == "compiled":
        method.backbone.compile(dynamic=False)
    optimizer = method.optimizer.build(method, START["batch"])
    images = torch.randint(0, 256, (START["batch"], 3, 32, 32), dtype=torch.uint8)

    def call() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
            made, _ = method.make_views(images)
            loss = method.contrast(method.backbone(torch.cat(made)), len(made))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return _second(call)


def _second(call: Callable[[], object]) -> float:
    call()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--width", type=at_least(1), default=16, help="of ResNet-9")
    add("--repeats", type=at_least(1), default=3, help="passes over all parts")
    add("--results", type=Path, default=RESULTS, help="folder of the record")
    args = parser.parse_args(argv)
    args.results.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    words = ["python", "eval/step_costs.py", "--width", str(args.width)]
    words += ["--repeats", str(args.repeats)]
    record = {**provenance(shlex.join(words)), "width": args.width}
    kinds = dict.fromkeys(("eager", "bf16", "compiled"), float("inf"))
    rows = [(part, setting, float("inf")) for part, setting in settings()]
    with tqdm(total=args.repeats * (len(rows) + len(kinds)), unit="part") as bar:
        for _ in range(args.repeats):
            for i, (part, setting, least) in enumerate(rows):
                rows[i] = (part, setting, min(least, timed(part, setting, args.width)))
                bar.update()
            for kind in kinds:
                kinds[kind] = min(kinds[kind], whole(kind, args.width))
                bar.update()
    for part in PARTS:
        record[part] = [{**s, "seconds": _short(t)} for p, s, t in rows if p == part]
    record["whole step"] = {kind: _short(least) for kind, least in kinds.items()}
    path = args.results / "step_costs.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    total = seconds(START, record)
    print(f"a step of the start: {total:.3g} s as a sum, {kinds['eager']:.3g} s as a whole", path)


def _short(number: float) -> float:
    return float(f"{number:.4g}")


if __name__ == "__main__":
    main()
