"""Rewrite what quotes eval/results/: tables of README and docs, `Expected` lines of configs.

python eval/tables.py          # rewrite
python eval/tables.py --check  # exit code 1 and the names, if something is stale
"""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import fast_tables
import metric_tables
import readme_tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "eval" / "results"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="rewrite nothing")
    check, stale = parser.parse_args(argv).check, []
    for path, text in rewritten().items():
        if path.read_text() != text:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(text)
    print(f"stale: {', '.join(stale)}" if stale else "all is current")
    return 1 if stale and check else 0


def rewritten() -> dict[Path, str]:
    """Every file that quotes results, with the text it should have."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    runs = {name: record for name, record in records.items() if {"config", "runs"} <= record.keys()}
    pages = {
        ROOT / "README.md": readme_tables.blocks(records, runs),
        ROOT / "docs" / "fast.md": fast_tables.blocks(records),
        ROOT / "docs" / "metric_learning.md": metric_tables.blocks(records, runs),
    }
    texts = {}
    for page, blocks in pages.items():
        texts[page] = page.read_text()
        for name, block in blocks.items():
            texts[page] = between(name, block, texts[page])
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        said = readme_tables.expected(runs[path.stem]) if path.stem in runs else "not measured yet"
        texts[path] = re.sub(
            r"^# Expected: .*\n(#   .*\n)*", f"# Expected: {said}.\n", path.read_text(), flags=re.M
        )
    return texts


def between(name: str, new: str, text: str) -> str:
    """The text with what stands between two markers replaced."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"a page lacks {start.strip()} or {end}")
    return f"{before}{start}{new}\n{end}{after}"


if __name__ == "__main__":
    sys.exit(main())
