"""The tables of the README, and the `Expected` lines of configs, out of eval/results/."""

import statistics
from typing import Any

from markdown_tables import markdown

from sslkit.evaluation import transfer_table
from sslkit.evaluation.published import SIMCLR12

SCORES = {"knn": "kNN", "linear": "linear"}
RETRIEVAL = {"recall@1": "Recall@1", "nmi": "NMI"}


def blocks(records: dict[str, Any], runs: dict[str, Any]) -> dict[str, str]:
    """What stands between the README's markers, by their names, of the records there are."""
    made = {"results": table(runs)}
    for name, make in {
        "shapes": fairness,
        "losses": speed,
        "views": views_speed,
        "methods": by_method,
        "evaluation": evaluation_speed,
    }.items():
        if name in records:
            made[name] = make(records[name])
    if "processes" in records:
        made["processes"] = contract(records["processes"]["losses"])
    if {"jitter", "views_downstream"} <= records.keys():
        made["jitter"] = fidelity(records["jitter"], records["views_downstream"])
    if "transfer" in records:
        made["transfer"] = transfer(records)
    if "step_cuda" in records:
        made["gpu"] = on_a_gpu(records)
    return made


def table(runs: dict[str, Any], scores: dict[str, str] = SCORES) -> str:
    """Scores in percent, a row a config and data set that has them, and how they were measured."""
    titles = [f"{title}{end}" for title in scores.values() for end in (", random weights", "")]
    rows, notes = [["config", "scored on", *titles]], []
    for name, record in runs.items():
        found = record["runs"][0]["accuracy"]["trained"]
        if not any(scores.keys() <= of.keys() for of in found.values()):
            continue
        for data in found:
            row = [f"`{name}`", data]
            for score in scores:
                row += [spread(record, kind, data, score) for kind in ("random", "trained")]
            rows.append(row)
        notes.append(f"`{name}`: {conditions(record)}, `{record['command']}`.")
    return "\n".join([markdown(rows), "", *notes])


def fairness(record: dict[str, Any]) -> str:
    """What `eval/shapes.py` found, a row each."""
    rows = [["", "", "%"]]
    for group, values in record.items():
        if isinstance(values, dict) and group != "versions":
            names = [group] + [""] * (len(values) - 1)
            rows += [[a, b, f"{c:.1f}"] for a, (b, c) in zip(names, values.items(), strict=True)]
    return markdown(rows)


def speed(record: dict[str, Any]) -> str:
    """What `eval/benchmarks/losses.py` found: times and peak memory of contenders, a row a size."""
    parts = []
    for group in ("NT-Xent", next(key for key in record if key.startswith("batch of "))):
        sizes = record[group]
        names = list(next(iter(sizes.values())))
        title = "NT-Xent, pairs" if group == "NT-Xent" else f"metric learning, {group}"
        rows = [[title, *names]]
        rows += [[size, *(cell(cells[name]) for name in names)] for size, cells in sizes.items()]
        parts.append(markdown(rows))
    return "\n\n".join([*parts, f"Measured on {record['hardware']}: `{record['command']}`."])


def cell(value: dict[str, float] | str) -> str:
    """Time and memory, or why there are none."""
    if isinstance(value, str):
        return value
    milliseconds, megabytes = value["milliseconds"], value["megabytes"]
    time = f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"
    return f"{time}, {megabytes:.0f} MB"


def evaluation_speed(record: dict[str, Any]) -> str:
    """What `eval/benchmarks/evaluation.py` found: seconds of the path and of the search."""
    classes = record["classes"]
    rows = [["seconds", *(f"{n} classes" for n in classes)]]
    first = next(iter(classes.values()))
    for kind, title in (("path", "linear probe, 45 values"), ("kNN", "kNN, k = 200")):
        for name in first[kind]["seconds"]:
            cells = [cell[kind]["seconds"] for cell in classes.values()]
            over = ["" if name == "sslkit" else f" ({c[name] / c['sslkit']:.1f})" for c in cells]
            seconds = [f"{c[name]:.3g}{times}" for c, times in zip(cells, over, strict=True)]
            rows.append([f"{title}: {name}", *seconds])
    best = [cell["path"]["best accuracy"] for cell in classes.values()]
    names = list(best[0])
    said = "; ".join(" and ".join(f"{accuracy[name]:.1f}" for name in names) for accuracy in best)
    table = markdown(rows)
    sizes = f"{record['rows']:,} x {record['width']} features, {record['queries']:,} to test with"
    return (
        f"{table}\n\n{sizes}; in brackets: over sslkit's time. Best accuracy on the path, "
        f"{' and '.join(names)}: {said}. Measured on {record['hardware']}: `{record['command']}`."
    )


def transfer(records: dict[str, Any]) -> str:
    """The transfer table of the runs at hand, and the one of retrieval."""
    parts = []
    for name, columns in (("transfer", tuple(SIMCLR12)), ("retrieval", ())):
        if name in records:
            record = records[name]
            table = transfer_table(record["results"], columns=columns, published=bool(columns))
            made = f"Measured on {record['hardware']}: `{record['command']}`."
            parts.append(f"{table.markdown()}\n\n{made} {record.get('note', '')}".rstrip())
    return "\n\n".join(parts)


def on_a_gpu(records: dict[str, Any]) -> str:
    """What one accelerator gave: steps, the loss, views, the path of the linear probe."""
    step, losses, views = (records[f"{name}_cuda"] for name in ("step", "losses", "views"))
    rows = [["", "", ""]]
    for found in step["cells"]:
        kind = "compiled" if found["compiled"] else "eager"
        name = f"SimCLR step, ResNet-18, 32 px, bf16, batch {found['batch']}, {kind}"
        share = found["share of views and loss"]
        rows.append(
            [
                name,
                f"{found['images per second']:,.0f} images/s",
                f"{found['seconds an epoch']:.1f} s an epoch of CIFAR-10; in Lightning "
                f"{found['images per second in Lightning']:,.0f} images/s; views and loss "
                f"{100 * share:.0f} % of the step",
            ]
        )
    for pairs, cells in losses["NT-Xent"].items():
        others = "; ".join(f"{n}: {cell(c)}" for n, c in cells.items() if n != "sslkit")
        rows.append([f"NT-Xent, {int(pairs):,} pairs", cell(cells["sslkit"]), others])
    for size, found in views["sizes"].items():
        over = ", ".join(f"{v:.1f} x {k}" for k, v in found["ours over theirs"].items())
        rows.append(
            [f"views, {size} px", f"{found['views per second']['sslkit']:,.0f} a second", over]
        )
    for name, record in records.items():
        if name.startswith("evaluation_"):
            for classes, found in record["classes"].items():
                size = f"{record['rows']:,} x {record['width']} features, {classes} classes"
                seconds = f"{found['path']['seconds']['sslkit']:.3g} s"
                peak = f"peak {found['path']['peak gigabytes']:.3g} GB"
                rows.append([f"linear probe, 45 values, {size}", seconds, peak])
    table = markdown(rows)
    commands = ", ".join(f"`{record['command']}`" for record in (step, losses, views))
    torch = step["versions"]["torch"]
    return f"{table}\n\nMeasured on one {step['hardware']}, torch {torch}: {commands}."


def views_speed(record: dict[str, Any]) -> str:
    """What `eval/benchmarks/views.py` found: views a second, and peak memory, a column a size."""
    cells = record["sizes"].values()
    sizes = [f"{size} px" for size in record["sizes"]]
    parts = []
    rates, peaks, over = "views per second", "peak memory over views", "ours over theirs"
    for key, title in (
        (rates, "views a second (sslkit's over it)"),
        (peaks, "peak memory over the bytes of two views"),
    ):
        rows = [[title, *sizes]]
        for name in next(iter(cells))[key]:
            row = [f"{cell[key][name]:{',.0f' if key == rates else '.1f'}}" for cell in cells]
            if key == rates and name != "sslkit":
                row = [f"{x} ({c[over][name]:.1f})" for x, c in zip(row, cells, strict=True)]
            rows.append([name, *row])
        parts.append(markdown(rows))
    return "\n\n".join([*parts, f"Measured on {record['hardware']}: `{record['command']}`."])


def contract(losses: dict[str, Any]) -> str:
    """What `eval/benchmarks/processes.py` found: ratios that should be 1, alike losses in a row."""
    splits = [split for split in next(iter(losses.values())) if not split.startswith("1 ")]
    head = ["norm, cosine, value", *splits]
    named: dict[tuple[str, ...], list[str]] = {}
    for name, found in losses.items():
        cells = [", ".join(map(ratio, found.get(split, {}).values())) for split in splits]
        named.setdefault(tuple(cell or "not tried" for cell in cells), []).append(name)
    rows = [["; ".join(names), *cells] for cells, names in named.items()]
    return markdown([head, *rows])


def ratio(value: float) -> str:
    """1 within 1e-6, else three digits."""
    return "1" if abs(value - 1) <= 1e-6 else f"{value:.3f}"


def fidelity(jitter: dict[str, Any], downstream: dict[str, Any]) -> str:
    """What `eval/jitter.py` and `eval/views_downstream.py` found."""
    rows = [["jitter", "moves a pixel by", "differs from torchvision's by"]]
    for name, found in jitter["difference of a pixel"].items():
        rows.append([name, f"{found['all four, of the jitter itself']:.3f}"])
        rows[-1].append(f"{found['all four, mean']:.3f}")
    scores = [["SimCLR with views of", "kNN", "linear"]]
    for name, runs in downstream["views"].items():
        values = [[run[score] for run in runs] for score in ("knn", "linear")]
        scores.append(
            [name, *(f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" for v in values)]
        )
    tables = [markdown(t) for t in (rows, scores)]
    seeds = len(next(iter(downstream["views"].values())))
    notes = [
        f"Means over {jitter['images']} test images of CIFAR-10: `{jitter['command']}`.",
        f"{seeds} seeds, {downstream['hardware']}: `{downstream['command']}`.",
    ]
    return "\n\n".join([tables[0], notes[0], tables[1], notes[1]])


def by_method(record: dict[str, Any]) -> str:
    """What `eval/methods.py` found: a row a method; then linear accuracy, a column a layer.

    The best layer is the one with the best linear accuracy on held-out training images.
    """
    order = ("rotation", "relative position", "jigsaw", "colorization", "InstDisc", "MoCo")
    order = [name for name in (*order, "SimCLR", "supervised") if name in record["methods"]]
    rows = {name: (record["methods"][name], "trained") for name in order}
    for name, title in (("colorization", "random, grey images"), ("SimCLR", "random")):
        if name in rows:
            rows = {title: (record["methods"][name], "random"), **rows}
    layers = list(record["methods"][order[0]][0]["accuracy"]["trained"])
    titles = ["kNN", "linear", "kNN, best layer", "linear, best layer", "minutes"]
    summary, table = [["", *titles]], [["linear", *layers]]
    for name, (runs, kind) in rows.items():
        found = [run["accuracy"][kind] for run in runs]
        best = [max(scores.values(), key=lambda layer: layer["validation"]) for scores in found]
        last = [scores[layers[-1]] for scores in found]
        columns = [[x[key] for x in group] for group in (last, best) for key in ("knn", "linear")]
        minutes = statistics.mean(run["pretraining_seconds"] for run in runs) / 60
        took = f"{minutes:.1f}" if kind == "trained" else ""
        summary.append([name, *map(mean_and_deviation, columns), took])
        by_layer = [[scores[layer]["linear"] for scores in found] for layer in layers]
        table.append([name, *map(mean_and_deviation, by_layer)])
    parts = [markdown(t) for t in (summary, table)]
    budget, hardware = record["budget"], record["methods"][order[0]][0]["hardware"]
    counts = {name: len(record["methods"][name]) for name in order}
    seeds = ", ".join(f"{name} {count}" for name, count in counts.items())
    seeds = seeds if len(set(counts.values())) > 1 else str(counts[order[0]])
    note = (
        f"{budget['data']}, {budget['epochs']} epochs of {budget['training images']:,} images on "
        f"{hardware}; seeds: {seeds}; `{record['command']}`."
    )
    return "\n\n".join([*parts, note])


def mean_and_deviation(values: list[float]) -> str:
    """In percent, the deviation where there are several."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def expected(record: dict[str, Any]) -> str:
    """One line for a config's header."""
    parts = []
    for data in record["runs"][0]["accuracy"]["trained"]:
        there = record["runs"][0]["accuracy"]["trained"][data]
        for score, title in {**SCORES, **RETRIEVAL}.items():
            if score not in there:
                continue
            values = [spread(record, kind, data, score) for kind in ("trained", "random")]
            parts.append(f"{data} {title} {values[0]} % (random weights {values[1]} %)")
    return ", ".join(parts) + f"\n#   {conditions(record)}"


def spread(record: dict[str, Any], kind: str, data: str, score: str) -> str:
    """The mean over the seeds, and the deviation where there are several."""
    return mean_and_deviation([run["accuracy"][kind][data][score] for run in record["runs"]])


def conditions(record: dict[str, Any]) -> str:
    """Seeds, time and hardware."""
    runs = record["runs"]
    minutes = statistics.mean(run["pretraining_seconds"] for run in runs) / 60
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    return f"{seeds}, {minutes:.0f} min of pretraining on {record['hardware']}"
