"""The tables of docs/metric_learning.md, out of the record of `eval/metric_learning.py`."""

import statistics
from typing import Any

from markdown_tables import markdown
from metric_rows import ROWS, best
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
    for name, make in {"rows": rows, "gains": gains, "steps": steps, "choice": choice}.items():
        made[name] = make(record) if record else "Not measured yet."
    return made


def rows(record: dict[str, Any]) -> str:
    """A table a set and start, in the lecture's layout."""
    parts = []
    for name, start, part in parts_of(record):
        table: Rows = [["method", *SCORES.values()]]
        before = f"{start}, not trained"
        found = part.get("rows", {})
        found = {row: found[row] for row in ROWS if found.get(row)}
        for row, cells in {before: part.get("before", []), **found}.items():
            if cells:
                table.append([row, *(spread(cells, score) for score in SCORES)])
        trained = [cell for cells in found.values() for cell in cells]
        seeds = sorted({cell["seed"] for cell in trained})
        slowest = max((cell["seconds"] for cell in trained), default=0)
        note = f"{len(seeds)} seed(s), at most {slowest / 60:.1f} min a row and seed."
        parts.append(f"### {TITLES[name]}, from {start}\n\n{markdown(table)}\n\n{note}")
    return "\n\n".join([*parts, f"Measured on {record['hardware']}: `{record['command']}`."])


def gains(record: dict[str, Any]) -> str:
    """Does DAML(x) beat x, and DE-DSP(x) x and uniform sampling? In points of Recall@1.

    In bold where the difference exceeds the deviation over the seeds of a difference of the two.
    """
    pairs = [(f"DAML ({x})", x) for x in ("contrastive", "triplet", "lifted", "N-pair")]
    for x in ("triplet", "N-pair"):
        pairs += [(f"DE-DSP ({x})", x), (f"DE-DSP ({x})", f"uniform sampling ({x})")]
    found = list(parts_of(record))
    table: Rows = [
        ["points of Recall@1", *(f"{TITLES[name]}, {start}" for name, start, _ in found)]
    ]
    for new, old in pairs:
        rows = [part.get("rows", {}) for _, _, part in found]
        cells = [difference(of.get(new, []), of.get(old, [])) for of in rows]
        if any(cells):
            table.append([f"{new} over {old}", *cells])
    return markdown(table)


def steps(record: dict[str, Any]) -> str:
    """Recall@1 in the course of training, of the ways to choose negatives."""
    parts = []
    for name, start, part in parts_of(record):
        found = {row: part.get("rows", {}).get(row, []) for row in SAMPLING}
        found = {row: cells for row, cells in found.items() if cells}
        if not found:
            continue
        points = [step for step, _ in next(iter(found.values()))[0]["curve"]]
        table: Rows = [[f"{TITLES[name]}, {start}", *(f"{step} steps" for step in points)]]
        for row, cells in found.items():
            curves = zip(*([score for _, score in cell["curve"]] for cell in cells), strict=True)
            table.append([row, *(mean_and_deviation(list(values)) for values in curves)])
        parts.append(markdown(table))
    return "\n\n".join(parts)


def choice(record: dict[str, Any]) -> str:
    """What was chosen for each loss, on held-out training classes."""
    found = list(parts_of(record))
    table: Rows = [["loss", *(f"{TITLES[name]}, {start}" for name, start, _ in found)]]
    for loss in dict.fromkeys(loss for _, _, part in found for loss in part["choice"]):
        cells = []
        for _, _, part in found:
            if tried := part["choice"].get(loss):
                chosen = best(tried)
                length = "length 1" if chosen["normalize"] else "any length"
                cells.append(f"{chosen['lr']:g}, {length}")
            else:
                cells.append("")
        table.append([loss, *cells])
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
    return [(name, start, p) for name, s in record["sets"].items() for start, p in s.items()]


def difference(new: Cells, old: Cells) -> str:
    """Of the means of Recall@1, in bold where it is beyond the seeds' spread."""
    if not new or not old:
        return ""
    values = [[cell["recall@1"] for cell in cells] for cells in (new, old)]
    gain = statistics.mean(values[0]) - statistics.mean(values[1])
    if min(map(len, values)) < 2:
        return f"{gain:+.1f}"
    deviation = sum(statistics.variance(v) for v in values) ** 0.5
    text = f"{gain:+.1f} ± {deviation:.1f}"
    return f"**{text}**" if abs(gain) > deviation else text


def spread(cells: Cells, score: str) -> str:
    return mean_and_deviation([cell[score] for cell in cells])
