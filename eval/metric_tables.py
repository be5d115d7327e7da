"""The tables of docs/metric_learning.md, out of the record of `eval/metric_learning.py`."""

import json
import statistics
from typing import Any

from markdown_tables import markdown
from metric_rows import RATES, ROWS, STARTS, best, setup
from readme_tables import RETRIEVAL, mean_and_deviation, table

Rows = list[list[str]]
Cells = list[dict[str, Any]]

SCORES = {
    "nmi": "NMI",
    "f1": "F1",
    "recall@1": "R@1",
    "recall@2": "R@2",
    "recall@4": "R@4",
    "recall@8": "R@8",
}
TITLES = {"omniglot": "Omniglot", "cars196": "Cars196"}
SAMPLING = (
    "triplet",
    "semi-hard triplet",
    "uniform sampling (triplet)",
    "DE-DSP (triplet)",
    "PADS (triplet)",
    "N-pair",
    "uniform sampling (N-pair)",
    "DE-DSP (N-pair)",
)
T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # the 97.5th percentile of Student's t, by seeds
# What the papers report with GoogLeNet from ImageNet weights, of the whole sets (Duan et al. 2018,
# 2019): NMI, F1, Recall@1, 2, 4, 8.
PUBLISHED = {
    "DDML": ("47.3 13.1 31.2 41.6 54.7", "41.7 10.9 32.7 43.9 56.5 68.8"),
    "contrastive": ("", "42.3 10.5 27.6 38.3 51.0 63.9"),
    "DAML (contrastive)": ("", "42.6 11.4 37.2 49.6 61.8 73.3"),
    "triplet": ("49.8 15.0 35.9 47.7 59.1", "52.9 17.9 45.1 57.4 69.7 79.2"),
    "semi-hard triplet": ("50.3 16.4 37.9 50.4 63.0", "53.3 18.5 52.4 65.2 75.1"),
    "DAML (triplet)": ("", "56.5 22.9 60.6 72.5 82.5 89.9"),
    "DE-DSP (triplet)": ("53.7 19.8 41.0 53.2 64.8", "55.0 22.3 59.3 71.3 81.3"),
    "triplet + N-pair": ("", "54.3 19.6 46.3 59.9 71.4 81.3"),
    "lifted": ("56.4 22.6 46.9 59.8 71.2", "57.8 25.1 59.9 70.4 79.6 87.0"),
    "DAML (lifted)": ("", "63.1 31.9 72.5 82.1 88.5 92.9"),
    "clustering": ("59.2 - 48.2 61.4 71.8", "59.0 - 58.1 70.6 80.3"),
    "angular": ("61.0 30.2 53.6 65.0 75.3", "62.4 31.8 71.3 80.7 87.0 91.8"),
    "N-pair": ("60.2 28.2 51.9 64.3 74.9", "62.7 31.8 68.9 78.9 85.8 90.9"),
    "DAML (N-pair)": ("61.3 29.5 52.7 65.4 75.5", "66.0 36.4 75.1 83.8 89.7 93.5"),
    "DE-DSP (N-pair)": ("61.7 30.5 53.6 65.5 76.9", "64.4 33.3 72.9 81.6 88.8"),
}


def blocks(records: dict[str, Any], runs: dict[str, Any]) -> dict[str, str]:
    """What stands between the page's markers, by their names, of the records there are."""
    made = {"published": published(), "configs": table(runs, RETRIEVAL)}
    costs = records.get("sampling")
    made["costs"] = sampling_costs(costs) if costs else "Not measured yet."
    record = records.get("metric_learning")
    makers = {"rows": rows, "gains": gains, "steps": steps, "watched": watched, "choice": choice}
    for name, make in makers.items():
        made[name] = make(record) if record else "Not measured yet."
    return made


def rows(record: dict[str, Any]) -> str:
    """A table a set and start, in the lecture's layout."""
    parts = []
    for name, start, part in parts_of(record):
        table: Rows = [["method", *SCORES.values()]]
        if not rows_of(part):
            continue
        found = {f"features of {start}": part.get("before", []), **rows_of(part)}
        most = max(map(len, found.values()), default=0)
        for row, cells in found.items():
            if cells:
                few = f", {len(cells)} seed" if row in ROWS and len(cells) < most else ""
                table.append([f"{row}{few}", *(spread(cells, score) for score in SCORES)])
        seconds = [c["seconds of training"] for cells in rows_of(part).values() for c in cells]
        slowest = f", at most {max(seconds) / 60:.1f} min of training" if seconds else ""
        note = f"{splits(record['data'][name])} {most} seed{'s' * (most > 1)}{slowest}."
        parts.append(f"### {TITLES[name]}, from {start}\n\n{markdown(table)}\n\n{note}")
    cells = [c for _, _, part in parts_of(record) for of in rows_of(part).values() for c in of]
    commits = ", ".join(sorted({cell["commit"] for cell in cells}))
    made = f"Measured on {record['hardware']}, commit {commits}: `{record['command']}`."
    now = json.loads(json.dumps(setup()))
    if any(record["setup"].get(key) != value for key, value in now.items()):
        made += " What the methods do by default, or what is tried, has changed since."
    return "\n\n".join([*parts, made])


def splits(data: dict[str, Any]) -> str:
    """What trains and what tests, in a sentence."""
    (classes, images), (others, tests) = data["train"], data["test"]
    kind = f" ({data['differs']})" if data["differs"] else ""
    return f"{classes} classes of {images:,} images train, {others} of {tests:,} test{kind}."


def gains(record: dict[str, Any]) -> str:
    """Does DAML(x) beat x, and DE-DSP(x) x and uniform sampling? In points of Recall@1."""
    pairs = [(f"DAML ({x})", x) for x in ("contrastive", "triplet", "lifted", "N-pair")]
    for x in ("triplet", "N-pair"):
        pairs += [(f"DE-DSP ({x})", x), (f"DE-DSP ({x})", f"uniform sampling ({x})")]
    pairs.insert(6, ("DE-DSP (triplet)", "semi-hard triplet"))
    pairs.append(("PADS (triplet)", "uniform sampling (triplet)"))
    found = [(f"{TITLES[n]}, {start}", rows_of(part)) for n, start, part in parts_of(record)]
    found = [(title, rows) for title, rows in found if rows]
    table: Rows = [["points of Recall@1", *(title for title, _ in found)]]
    for new, old in pairs:
        cells = [difference(rows.get(new, []), rows.get(old, [])) for _, rows in found]
        if any(cells):
            table.append([f"{new} over {old}", *cells])
    highest = []
    for title, rows in found:
        mean = {
            row: statistics.mean(cell["recall@1"] for cell in cells) for row, cells in rows.items()
        }
        first = max(mean, key=mean.__getitem__)
        highest.append(f"{first}, {mean[first]:.1f} ({title})")
    return f"{markdown(table)}\n\nHighest Recall@1: {'; '.join(highest)}."


def steps(record: dict[str, Any]) -> str:
    """Recall@1 in the course of training, of the ways to choose negatives."""
    parts = []
    for name, start, part in parts_of(record):
        found = {row: cells for row, cells in rows_of(part).items() if row in SAMPLING}
        if not found:
            continue
        points = [step for step, _ in next(iter(found.values()))[0]["curve"]]
        table: Rows = [[f"{TITLES[name]}, {start}", *(f"{step} steps" for step in points)]]
        for row, cells in found.items():
            curves = zip(*([score for _, score in cell["curve"]] for cell in cells), strict=True)
            table.append([row, *(mean_and_deviation(list(values)) for values in curves)])
        parts.append(markdown(table))
    return "\n\n".join(parts)


def watched(record: dict[str, Any]) -> str:
    """What DAML and the samplers logged in the last quarter of training."""
    keys = {
        "harder": "harder",
        "to_class": "to its class",
        "real_to_class": "real ones to theirs",
        "rank": "rank",
        "entropy": "entropy",
        "class_entropy": "of classes",
    }
    table: Rows = [["", "", *keys.values()]]
    for name, start, part in parts_of(record):
        for row, cells in rows_of(part).items():
            last = [cell["watched"][-1] for cell in cells]
            if any(key in last[0] for key in keys):
                values = [[of[key] for of in last if key in of] for key in keys]
                means = [f"{statistics.mean(v):.2f}" if v else "" for v in values]
                table.append([f"{TITLES[name]}, {start}", row, *means])
    return markdown(table)


def choice(record: dict[str, Any]) -> str:
    """What was chosen on held-out classes; in italics a rate at the end of those tried."""
    found = [each for each in parts_of(record) if each[2].get("choice") or rows_of(each[2])]
    table: Rows = [["", *(f"{TITLES[name]}, {start}" for name, start, _ in found)]]
    for row in ROWS:
        cells = []
        for _, start, part in found:
            tried = part.get("choice", {}).get(row)
            trained = rows_of(part).get(row)
            chosen = best(tried) if tried else trained[0]["chosen"] if trained else {}
            if not tried:  # an option that was chosen elsewhere, beside the choice of the loss
                chosen = {knob: chosen[knob] for knob, _ in ROWS[row].knobs if knob in chosen}
            if "lr" in chosen:
                rate = f"{chosen['lr']:g}"
                ends = (min(RATES[start]), max(RATES[start]))
                rate = f"*{rate}*" if chosen["lr"] in ends else rate
                cells.append(f"{rate}, {'length 1' if chosen['normalize'] else 'any length'}")
            else:
                cells.append(", ".join(f"{key} {value:g}" for key, value in chosen.items()))
        if any(cells):
            table.append([row, *cells])
    return markdown(table)


def sampling_costs(record: dict[str, Any]) -> str:
    """What `eval/benchmarks/sampling.py` found: a step, and how much it is of the loss alone's."""
    rows = list(next(iter(record["sets"].values()))["seconds a step"])
    table: Rows = [["milliseconds a step (over the loss alone)", *rows]]
    for name, found in record["sets"].items():
        cells = [
            f"{1000 * found['seconds a step'][row]:.1f} ({found['over the loss'][row]:.2f})"
            for row in rows
        ]
        table.append([TITLES[name], *cells])
    return f"{markdown(table)}\n\nMeasured on {record['hardware']}: `{record['command']}`."


def published() -> str:
    """The papers' table, of both sets."""
    parts = []
    for i, (title, columns) in enumerate((("CUB-200-2011", 5), ("Cars196", 6))):
        table: Rows = [[title, *list(SCORES.values())[:columns]]]
        for row, cells in PUBLISHED.items():
            if values := cells[i].split():
                table.append([row, *values, *[""] * (columns - len(values))])
        parts.append(markdown(table))
    return "\n\n".join(parts)


def parts_of(record: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Sets and starts in order, with what there is of each."""
    sets = record["sets"]
    found = [(name, start) for name in TITLES for start in STARTS if start in sets.get(name, {})]
    return [(name, start, sets[name][start]) for name, start in found]


def rows_of(part: dict[str, Any]) -> dict[str, Cells]:
    """The rows that there are, in order."""
    found = part.get("rows", {})
    return {row: found[row] for row in ROWS if found.get(row)}


def difference(new: Cells, old: Cells) -> str:
    """Of Recall@1 from seed to seed, in bold where its 95 % interval (Student's t) leaves out 0."""
    was, now = ({cell["seed"]: cell["recall@1"] for cell in cells} for cells in (old, new))
    gains = [now[seed] - was[seed] for seed in sorted(was.keys() & now.keys())]
    if not gains:
        return ""
    mean = statistics.mean(gains)
    if len(gains) == 1:
        return f"{mean:+.1f}"
    text = f"{mean:+.1f} ± {(deviation := statistics.stdev(gains)):.1f}"
    half = T[min(len(gains), max(T))] * deviation / len(gains) ** 0.5
    return f"**{text}**" if abs(mean) > half else text


def spread(cells: Cells, score: str) -> str:
    return mean_and_deviation([cell[score] for cell in cells])
