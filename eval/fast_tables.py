"""The tables of docs/fast.md, out of the records of its scripts."""

from typing import Any

from benchmarks import curves
from gains import mean_gain, words
from markdown_tables import markdown

Rows = list[list[str]]


def blocks(records: dict[str, Any]) -> dict[str, str]:
    """What stands between the page's markers, by their names."""
    makers = {
        "step": steps,
        "step_cuda": steps,
        "time_to_accuracy": side_by_side,
        "recipe": recipe,
        "simclr_cifar10_fast": epochs,
    }
    return {
        name: make(records[name]) if name in records else "Not measured yet."
        for name, make in makers.items()
    }


def steps(record: dict[str, Any]) -> str:
    """What `eval/benchmarks/step.py` found: a row a case."""
    rows: Rows = [["a step of", "images/s", "in Lightning", "beside the network", "the loop"]]
    for cell in record["cells"]:
        parts = cell.get("milliseconds in Lightning", cell["milliseconds"])
        beside = sum(ms for part, ms in parts.items() if "ward" not in part) / sum(parts.values())
        loop = f"{100 * cell['share of the loop']:.1f} %" if "share of the loop" in cell else ""
        rows.append(
            [
                f"{cell['batch']}, {'compiled' if cell['compiled'] else 'eager'}",
                f"{cell['images per second']:,.0f}",
                f"{cell['images per second in Lightning']:,.0f}",
                f"{100 * beside:.1f} %",
                loop or "not measured yet",
            ]
        )
    first = record.get("seconds to the first step")
    said = f" First step {first} s after the command." if first else ""
    if slow := record.get("images per second, memory returned"):
        said += f" Where freed memory goes back to the system: {slow:,.0f} images/s."
    return f"{markdown(rows)}\n\n{measured(record)}{said}"


def side_by_side(record: dict[str, Any]) -> str:
    """What `eval/benchmarks/time_to_accuracy.py` found: a row an arm and budget."""
    lightly = record["versions"]["lightly"]
    return f"{curves.table(record)}\n\nlightly {lightly}. {measured(record)}"


def recipe(record: dict[str, Any]) -> str:
    """What `eval/recipe.py` found: a row a change."""
    if "result" not in record:
        return "Not measured yet."
    setup, start, result = record["setup"], record["start"], record["result"]
    rows: Rows = [["", "change", "cost of an image", "steps", "kNN", "gain", "gain together", ""]]

    def row(name: str, entry: dict[str, Any], verdict: str = "", gain: float | None = None) -> None:
        found = [gain, entry.get("gain together")]
        cells = [name, words(entry["change"]), f"{entry['cost of an image']:.2f}"]
        cells += [str(entry["steps"]), accuracies(entry, setup["seeds"])]
        rows.append([*cells, *("" if x is None else f"{x:+.1f}" for x in found), verdict])

    row("start", start)
    for name, entries in record["alone"].items():
        for entry in entries:
            verdict = "**kept**" if entry.get("kept") else "dropped"
            row(name, entry, verdict, entry.get("gain"))
            name = ""
    row("result", {**result, "change": {}}, "", mean_gain(result, start, setup["seeds"]))
    said = (
        f"As many steps as {setup['seconds']:.0f} s hold on {setup['costs']['hardware']} "
        f"(`step_costs.json`), seeds {', '.join(map(str, setup['seeds']))}; kNN on "
        f"{setup['held out']:,} held-out training images, in percent. Gain: alone, over the start; "
        "together: of what was left when it was last tried, over the same without it. "
    )
    if fresh := setup["seeds to confirm"]:
        gained = mean_gain(result, start, fresh)
        said += f"On seeds that chose nothing ({', '.join(map(str, fresh))}): {gained:+.1f}. "
    said += f"{measured(record, 'Trained')} {record.get('note', '')}"
    return f"{markdown(rows)}\n\n{said.rstrip()}"


def accuracies(entry: dict[str, Any], seeds: list[int]) -> str:
    found = [f"{run['accuracy']:.1f}" for run in entry["runs"] if run["seed"] in seeds]
    return " ".join(found) or "only timed"


def epochs(record: dict[str, Any]) -> str:
    """The log of a run of `eval/measure.py`, every tenth part of it."""
    (run, *_) = record["runs"]
    log, seconds = run["epochs"], run["pretraining_seconds"]
    rows: Rows = [["epoch", "loss", "images/s"]]
    picked = sorted({round(i * (len(log) - 1) / 10) for i in range(11)})
    for row in (log[i] for i in picked):
        rate = f"{row['images_per_second']:,.0f}" if "images_per_second" in row else ""
        rows.append([str(row["epoch"] + 1), f"{row['train/loss']:.3f}", rate])
    scores = ", ".join(f"{k} {v:.1f}" for k, v in run["accuracy"]["trained"]["cifar10"].items())
    return f"{markdown(rows)}\n\n{len(log)} epochs in {seconds} s: {scores}. {measured(record)}"


def measured(record: dict[str, Any], verb: str = "Measured") -> str:
    torch = record["versions"]["torch"]
    return f"{verb} on {record['hardware']}, torch {torch}: `{record['command']}`."
