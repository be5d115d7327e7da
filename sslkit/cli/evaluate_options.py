"""The options of ``sslkit evaluate``, checked before anything is loaded."""

import argparse
from typing import Any

from jsonargparse import ArgumentParser

from sslkit.cli.config import one_line
from sslkit.evaluation import PROTOCOLS
from sslkit.evaluation.published import SIMCLR12

SUITES = {"simclr12": tuple(SIMCLR12)}


def parsed_options(argv: list[str]) -> Any:
    """The options as a namespace; ValueError, in one line, where they are not valid."""
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("targets", nargs="+", type=str)
    parser.add_argument("--data", nargs="+", type=str, default=None)
    parser.add_argument("--suite", type=str | None, default=None)
    parser.add_argument("--protocol", nargs="+", type=str, default=["knn", "linear"])
    parser.add_argument("--steps", type=int | None, default=None)
    parser.add_argument("--grid", type=str | None, default=None)
    parser.add_argument("--layer", nargs="+", type=str, default=None)
    parser.add_argument("--root", type=str | None, default=None)
    parser.add_argument("--limit", type=int | None, default=None)
    parser.add_argument("--device", type=str | None, default=None)
    parser.add_argument("--out", type=str | None, default=None)
    parser.add_argument("--cache", type=str | None, default=None)
    parser.add_argument("--again", action="store_true")
    try:
        args = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(f"{one_line(str(error))} ('sslkit evaluate --help' says more)") from None
    if (args.data is None) == (args.suite is None):
        given = "both were given" if args.data else "neither was given"
        raise ValueError(
            f"--data NAME [NAME ...] or --suite simclr12 says what to score on: {given}"
        )
    if args.suite is not None and args.suite not in SUITES:
        raise ValueError(f"no suite named {args.suite!r}; choose from {', '.join(SUITES)}")
    for name in ("limit", "steps"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    args.grid = _grid(args.grid)
    if (args.steps or args.grid) and not any(
        "recipe" in PROTOCOLS[name].parameters for name in args.protocol if name in PROTOCOLS
    ):
        raise ValueError("--steps and --grid cut what trains: finetune, semi1 or semi10")
    return args


def _grid(text: str | None) -> tuple[int, int] | None:
    """3x4 as 3 learning rates by 4 weight decays."""
    parts = text.split("x") if text else []
    if text is None:
        return None
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--grid is learning rates by weight decays, such as 3x4, not {text!r}")
    return int(parts[0]), int(parts[1])
