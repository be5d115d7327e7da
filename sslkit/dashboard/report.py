"""``report.html``: a run on one page that needs nothing but a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sslkit.dashboard._style import STYLE
from sslkit.dashboard.metrics import Series, read_metrics
from sslkit.dashboard.plots import (
    COLOURS,
    GRID,
    INK,
    PROTOCOLS,
    backbone_name,
    curves,
    panels,
    scores_bar,
    scores_by_layer,
)
from sslkit.dashboard.report_pictures import image, run_pictures, score_pictures
from sslkit.evaluation.entries import metric_title
from sslkit.evaluation.protocols import headline
from sslkit.training import write_atomically

UNITS = "In percent; accuracy where no metric is named."
# What a plot's colours turn into in dark mode.
DARK = {INK: "#e8e8ee", GRID: "#3a3a44", COLOURS[0]: "#56b4e9", COLOURS[5]: "#8fa8ff"}


def write_report(run_dir: str | Path) -> Path:
    """Write ``run_dir/report.html`` from what lies in the run folder, and return its path.

    The page holds a summary; the scores of ``evaluation/*.json`` and the pictures beside them, but
    for those of single layers; the curves of ``metrics.csv``, ``pictures/*.png`` and
    ``config.yaml``. It is one file: pictures are data URIs, there is no script, and nothing is
    fetched. A piece that is missing is a short note instead.

    Raises:
        FileNotFoundError: if ``run_dir`` is no folder.
        ValueError: if ``metrics.csv``, ``backbone.json`` or an evaluation cannot be read.

    >>> import tempfile
    >>> write_report(tempfile.mkdtemp()).name
    'report.html'
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise FileNotFoundError(f"no run folder {run_dir}")
    metrics_file, config_file = run_dir / "metrics.csv", run_dir / "config.yaml"
    metrics = read_metrics(metrics_file) if metrics_file.exists() else {}
    evaluations = {path: _json(path) for path in sorted(run_dir.glob("evaluation/*.json"))}
    config = config_file.read_text(encoding="utf-8") if config_file.exists() else ""
    backbone = run_dir / "backbone.json"
    about = _json(backbone) if backbone.exists() else {}
    title = escape(run_dir.resolve().name)
    body = [
        f"<h1>{title}</h1>",
        _summary(about, metrics),
        _scores([*evaluations.values()]),
        score_pictures(evaluations),
        _curves(metrics),
        "<h2>Pictures</h2>",
        run_pictures([*run_dir.glob("pictures/*.png")]) or _note("No pictures yet."),
        _config(config),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title} · sslkit</title>\n<style>\n{STYLE}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )
    path = run_dir / "report.html"
    write_atomically(path, page.encode())
    return path


def _summary(about: Mapping[str, Any], metrics: Mapping[str, Series]) -> str:
    """Facts side by side: the short ones of backbone.json, then where training stands."""
    facts = {
        str(key).replace("_", " "): value
        for key, value in about.items()
        if isinstance(value, str | int | float)
        and len(str(value)) <= 60
        and key not in ("format", "step")
    }
    steps = [step for series, _ in metrics.values() for step in series]
    if steps:
        facts["steps"] = f"{max(steps) + 1:,}"
    if "epoch" in metrics:
        facts["epochs"] = f"{max(metrics['epoch'][1]) + 1:.0f}"
    for label, name in (("final loss", "train/loss"), ("online kNN", "online/knn")):
        if name in metrics:
            facts[label] = f"{metrics[name][1][-1]:.4g}"
    if not facts:
        return _note("No backbone.json and no metrics yet.")
    items = (f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items())
    return f'<dl class="facts">{"".join(items)}</dl>'


def _scores(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """The table of scores and the bars."""
    head = "<h2>Scores</h2>\n"
    if not evaluations:
        return head + _note("Not evaluated yet: no evaluation/*.json.")
    protocols = list(dict.fromkeys(p for row in evaluations for p in row["protocols"]))
    titles = [PROTOCOLS.get(protocol, protocol) for protocol in protocols]
    numbers = "".join(f'<th class="n">{escape(title)}</th>' for title in titles)
    about = ["data", *(["layer"] if any("layer" in row for row in evaluations) else [])]
    head_row = "".join(f"<th>{title}</th>" for title in [*about, "training images", "weights"])
    lines = [f"{head_row}{numbers}<th>backbone</th>"]
    rows = sorted(
        evaluations,
        key=lambda row: (_scored_on(row), _depth(row), row.get("weights") != "random"),
    )
    for row in rows:
        texts = [str(row.get(key, "")) for key in (*about, "n_train")] + [backbone_name(row)]
        cells = [f"<td>{escape(text)}</td>" for text in texts]
        cells += [f'<td class="n">{_cell(row["protocols"].get(p, {}))}</td>' for p in protocols]
        cells.append(f"<td>{escape(str(row.get('backbone', '')))}</td>")
        lines.append("".join(cells))
    table = "\n".join(f"<tr>{line}</tr>" for line in lines)
    text = f'{head}<div class="wide"><table>\n{table}\n</table></div>\n{_note(UNITS)}'
    scored = [
        row for row in rows if any(headline(v) is not None for v in row["protocols"].values())
    ]
    figures = []
    for title in sorted(set(map(_scored_on, scored))):
        here = [row for row in scored if _scored_on(row) == title]
        of_features = [row for row in here if "layer" not in row]
        if of_features:
            figures.append(_plot(scores_bar(of_features, title), f"scores on {title}"))
        if len(of_features) < len(here):
            by_layer = scores_by_layer([row for row in here if "layer" in row], title)
            figures.append(_plot(by_layer, f"scores by layer on {title}"))
    return text + f'<div class="plots">{"".join(figures)}</div>'


def _scored_on(row: Mapping[str, Any]) -> str:
    """Scores compare only where the same number of images was trained on."""
    images = f", {row['n_train']:,} training images" if "n_train" in row else ""
    return f"{row['data']}{images}"


def _depth(row: Mapping[str, Any]) -> int:
    """Where a layer stands in its backbone, from 1; the features come first."""
    return row["layers"].index(row["layer"]) + 1 if "layer" in row else 0


def _cell(values: Mapping[str, Any]) -> str:
    """The score, with its metric where that is not accuracy; every number where there is none.

    >>> _cell({"accuracy": 61.234, "k": 20}), _cell({"map": 0.5}), _cell({})
    ('61.2', 'map 0.5', '—')
    """
    if (score := headline(values)) is not None:
        metric = values.get("metric", "accuracy")
        named = "" if metric == "accuracy" else f" {metric_title(metric)}"
        return f"{score:.1f}{escape(named)}"
    numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
    return "<br>".join(f"{escape(str(k))} {v:.4g}" for k, v in numbers.items()) or "—"


def _curves(metrics: Mapping[str, Series]) -> str:
    """A plot a panel, so that a narrow screen can stack them."""
    head = "<h2>Training</h2>\n"
    groups = panels(metrics)
    if not groups:
        return head + _note("No metrics yet.")
    plots = (
        _plot(curves({name: metrics[name] for name in names}, title), title)
        for title, names in groups.items()
    )
    return f'{head}<div class="plots">{"".join(plots)}</div>'


def _config(config: str) -> str:
    if not config:
        return "<h2>Configuration</h2>\n" + _note("No config.yaml.")
    summary = "<summary>config.yaml</summary>"
    return f"<h2>Configuration</h2>\n<details>{summary}<pre>{escape(config)}</pre></details>"


def _plot(svg: bytes, alt: str) -> str:
    """A plot whose colours follow the page's light or dark mode."""
    text = svg.decode()
    light = "".join(f"--c{i}:{colour};" for i, colour in enumerate(DARK))
    dark = "".join(f"--c{i}:{colour};" for i, colour in enumerate(DARK.values()))
    for i, colour in enumerate(DARK):
        text = text.replace(f": {colour}", f": var(--c{i})")
    style = f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
    text = text.replace("<defs>", f"<style>{style}</style><defs>", 1)
    return image(text.encode(), "image/svg+xml", alt)


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
