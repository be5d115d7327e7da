"""The lecture's layout of a transfer table: entries in rows and columns, with their footnotes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from string import ascii_lowercase

from sslkit.evaluation.entries import (
    PROTOCOL_TITLES,
    Entry,
    metric_title,
    ordered,
    protocol_title,
)
from sslkit.evaluation.grid import Block, Cell, Grid
from sslkit.evaluation.published import SIMCLR12


def best(entries: Iterable[Entry]) -> set[Entry]:
    """Of each protocol and set the best of ours at one decimal, if all are comparable."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for e in entries:
        if e.status == "scored":
            of_several = e.metric if e.protocol == "retrieval" else ""
            groups.setdefault((e.protocol, e.data, of_several), []).append(e)
    found: set[Entry] = set()
    for group in groups.values():
        made = {(e.protocol_id, e.metric, e.differs, e.cut, e.n_train, e.n_test) for e in group}
        if len(group) > 1 and len(made) == 1:
            top = max(float(e.text) for e in group)
            found.update(e for e in group if float(e.text) == top)
    return found


def by_set(entries: Sequence[Entry], footnotes: dict[str, str]) -> Grid:
    """A column a set, a block a protocol, a row a target; below them the paper's rows."""
    titles = {entry.data: entry.title for entry in entries}
    top, blocks = best(entries), []
    for protocol in ordered((entry.protocol for entry in entries), PROTOCOL_TITLES):
        rows: dict[tuple[str, str], dict[str, Entry]] = {}
        for entry in entries:
            if entry.protocol == protocol:
                whose = entry.source if entry.status == "published" else ""
                rows.setdefault((whose, entry.target), {})[entry.data] = entry
        usual = usual_id(entries, protocol)
        ours: list[list[Cell]] = []
        theirs: list[list[Cell]] = []
        for (source, target), row in rows.items():
            label = Cell(target)
            if source:
                backbone = next(iter(row.values())).backbone
                text = f"published ({source}): {backbone}, another backbone and budget, full sets"
                label = Cell(target, _marks([text], footnotes), "italic")
            cells = [label]
            for data in titles:
                found = row.get(data)  # the paper has not all sets
                marks = _marks(_reasons(found, usual), footnotes) if found else []
                style = "bold" if found in top else ""
                cells.append(Cell(found.text if found else "-", marks, style))
            (theirs if source else ours).append(cells)
        blocks.append(Block(protocol_title(protocol), ours, theirs))
    return Grid([Cell(title) for title in titles.values()], blocks)


def of_retrieval(entries: Sequence[Entry], footnotes: dict[str, str]) -> Grid:
    """A column a number, a row a target and set."""
    names = {entry.metric for entry in entries}
    recalls = sorted((n for n in names if n.startswith("recall@")), key=lambda n: int(n[7:]))
    metrics = [*recalls, *(name for name in ("nmi", "f1", "map@r") if name in names)]
    top, usual = best(entries), usual_id(entries, "retrieval")
    rows: dict[tuple[str, str], dict[str, Entry]] = {}
    for entry in entries:
        rows.setdefault((entry.target, entry.data), {})[entry.metric] = entry
    lines = []
    for (target, _), row in rows.items():
        first = next(iter(row.values()))
        other = "-" if first.status == "scored" else first.text
        found = [row.get(metric) for metric in metrics]
        cells = [Cell(e.text, (), "bold" if e in top else "") if e else Cell(other) for e in found]
        marks = _marks(_reasons(first, usual), footnotes)
        lines.append([Cell(target), Cell(first.title, marks), *cells])
    head = [Cell("set"), *(Cell(metric_title(metric)) for metric in metrics)]
    return Grid(head, [Block(protocol_title("retrieval"), lines)], texts=2)


def usual_id(entries: Iterable[Entry], protocol: str) -> str:
    """The protocol's name, version and hash, of most of its scores; "" without one."""
    found = Counter(e.protocol_id for e in entries if e.protocol == protocol and e.protocol_id)
    return found.most_common(1)[0][0] if found else ""


def _reasons(entry: Entry, usual: str) -> list[str]:
    """Why a score is not what its place in the table says."""
    if entry.status != "scored":
        return []
    metric, other = entry.metric, entry.protocol_id != usual
    named = entry.protocol_id or "no named protocol"
    papers = SIMCLR12.get(entry.data, metric) if entry.protocol != "retrieval" else metric
    budget = f"{protocol_title(entry.protocol)}: {entry.cut}" + (f" ({named})" if other else "")
    texts = {
        f"{entry.title}: {entry.differs}, not the published set": entry.differs,
        budget: entry.cut,
        f"by {named}, not {usual}": other and not entry.cut,
        f"{metric_title(metric)}, not {metric_title(papers)}": metric != papers,
    }
    return [text for text, holds in texts.items() if holds]


def _marks(texts: Iterable[str], footnotes: dict[str, str]) -> list[str]:
    """The mark of each footnote: that which it has, else the next letter."""
    for text in texts:
        n = len(footnotes)
        before = ascii_lowercase[n // 26 - 1] if n >= 26 else ""
        footnotes.setdefault(text, before + ascii_lowercase[n % 26])
    return [footnotes[text] for text in texts]


def notes_under(entries: Sequence[Entry]) -> list[str]:
    """What stands under the table: metrics, protocols, backbones, and why a score is missing."""
    ours = [entry for entry in entries if entry.status != "published"]
    sets: dict[str, dict[str, None]] = {}  # metric, titles
    for e in (e for e in ours if e.protocol != "retrieval"):
        sets.setdefault(metric_title(SIMCLR12.get(e.data, e.metric)), {})[e.title] = None
    metrics = "; ".join(f"{metric} ({', '.join(titles)})" for metric, titles in sets.items())
    lines = [f"In percent: {metrics}." if metrics else "In percent."]
    if best(ours):
        lines.append("Bold: the best of our rows, where all are of the same images and protocol.")
    for protocol in ordered((e.protocol for e in ours), PROTOCOL_TITLES):
        if usual := usual_id(ours, protocol):
            lines.append(f"{protocol_title(protocol)}: {usual}.")
    for e in ours:
        step = "" if e.step is None else f", step {e.step:,}"
        lines += [f"{e.target}: {e.backbone}{step}."] if e.backbone else []
    lines += [f"{e.title}: {e.note}." for e in ours if e.status == "scored" and e.note]
    lines += [f"Absent ({e.title}): {e.note}" for e in ours if e.status == "absent"]
    for e in ours:
        if e.status == "failed":
            lines.append(f"Failed ({protocol_title(e.protocol)}, {e.target}, {e.title}): {e.note}")
    if any(e.status == "not run" for e in ours):
        lines.append("Not run: not asked for, or not reached.")
    return list(dict.fromkeys(lines))
