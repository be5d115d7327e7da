"""``sslkit views``: images beside what a config's view makes of them, in one picture."""

import argparse
import io
import sys
from pathlib import Path

import torch
from PIL import Image

from sslkit.cli.arguments import config_names, values, with_config_files
from sslkit.cli.config import parse
from sslkit.dashboard.picture_sheets import sample, sheet_of
from sslkit.data import gather
from sslkit.training import write_atomically

JPEG = {"format": "JPEG", "quality": 92, "subsampling": 0}
FORMATS = {
    ".png": {"format": "PNG"},
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".webp": {"format": "WEBP", "lossless": True},
}
MOST = 256  # images


def run(argv: list[str]) -> int:
    """Draw; returns the exit code."""
    args, argv = _own(argv)
    if values(argv, "--resume"):
        raise ValueError("there is nothing to resume: --config RUN/config.yaml shows a run's views")
    if not all(values(argv, "--config") or [""]):
        raise ValueError(f"--config is missing: give a file, or one of {', '.join(config_names())}")
    cli = parse(with_config_files(argv), own=("--out", "--images", "--overwrite"))
    view, data = cli.model.view, cli.datamodule
    data.resident = False  # of a folder, the images that are drawn alone are decoded
    data.setup("fit")
    images, _ = gather(data.dataset, sample(len(data.dataset), args.images))
    seed = torch.initial_seed() % 2**32
    sheet = sheet_of(view, images, view.manual_seed(seed)(images))
    content = _encoded(sheet, args.out)
    try:
        write_atomically(args.out, content)
    except OSError as error:
        raise ValueError(f"--out {args.out} cannot be written: {error.strerror}") from error
    print(f"views: {args.out}", file=sys.stderr)
    return 0


def _own(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, checked, and the arguments that are left to ``parse``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--out", type=Path, default=Path("views.png"))
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--overwrite", action="store_true")
    try:
        args, others = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error} ('sslkit views --help' says more)") from None
    if not 1 <= args.images <= MOST:
        raise ValueError(f"--images must be 1 to {MOST}, not {args.images}")
    if args.out.suffix.lower() not in FORMATS:
        raise ValueError(f"--out must end in {', '.join(FORMATS)}, not {str(args.out)!r}")
    if args.out.is_dir():
        raise ValueError(f"--out {args.out} is a folder, not a picture")
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} exists: give another --out, or --overwrite to replace it")
    return args, others


def _encoded(sheet: Image.Image, out: Path) -> bytes:
    """The bytes of the picture's file."""
    content = io.BytesIO()
    try:
        sheet.save(content, **FORMATS[out.suffix.lower()])
    except (OSError, ValueError) as error:  # a side longer than the format can hold
        width, height = sheet.size
        raise ValueError(
            f"{width} x {height} pixels do not go into {out} ({error}): take .png or fewer --images"
        ) from error
    return content.getvalue()
