"""The transfer table of some runs with what it was measured on: eval/results/transfer.json, .png.

    python eval/transfer.py runs/a random runs/b -- --suite simclr12 --protocol knn linear

What follows `--` goes to `sslkit evaluate`, whose finished scores are kept in --out. The folder of
the data is written as DATA. `--add FILE` puts results that were made elsewhere in the place of
cells without a score. `python eval/tables.py` puts the table into the README.
"""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from measure import sslkit
from records import RESULTS, provenance

from sslkit.dashboard import transfer_chart
from sslkit.evaluation.published import SIMCLR12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="After --: options of sslkit evaluate."
    )
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("transfer"), help="where scores are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    parser.add_argument("--name", default="transfer", help="of the record")
    parser.add_argument("--add", nargs="+", type=Path, default=[])
    argv = sys.argv[1:]
    end = argv.index("--") if "--" in argv else len(argv)
    args, options = parser.parse_args(argv[:end]), argv[end + 1 :]
    sslkit("evaluate", *args.targets, *options, "--out", str(args.out))
    table = "simclr12" if "--suite" in options else "table"
    results = json.loads((args.out / "table" / f"{table}.json").read_text())["results"]
    for path in args.add:
        results = added(results, json.loads(path.read_text()))
    command = shlex.join(["python", "eval/transfer.py", *args.targets, "--", *options])
    text = json.dumps({**provenance(command), "results": results}, indent=2)
    text = text.replace(str(Path(os.environ.get("SSLKIT_DATA", "data"))), "DATA")
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"{args.name}.json"
    path.write_text(text + "\n")
    columns = tuple(SIMCLR12) if table == "simclr12" else ()
    transfer_chart(results, path.with_suffix(".png"), columns=columns, published=bool(columns))
    print(path)


def added(results: list[dict[str, Any]], other: dict[str, Any]) -> list[dict[str, Any]]:
    """The results with another one in the place of its target's on its set, which has no score."""
    places = [
        i
        for i, result in enumerate(results)
        if not result["protocols"]
        and all(result[key] == other[key] for key in ("target", "backbone", "data"))
    ]
    if len(places) != 1:
        raise SystemExit(f"{other['target']} on {other['data']} has no place of its own")
    return [other if i == places[0] else result for i, result in enumerate(results)]


if __name__ == "__main__":
    main()
