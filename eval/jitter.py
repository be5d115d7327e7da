"""How far the one-matrix colour jitter is from torchvision's: eval/results/jitter.json.

Both are given the same images (CIFAR-10's first test images), the same drawn factors and the
same order; torchvision clamps after each, and turns hue in HSV. Differences are means and 95th
percentiles over pixels in [0, 1]; beside them stands how far the jitter itself moves a pixel.
"""

import argparse
import json
from pathlib import Path

import torch
from records import RESULTS, provenance
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from sslkit.data import load
from sslkit.views import ColorJitterGrayscale

STRENGTHS = {
    "SimCLR, CIFAR-10 (0.4, 0.4, 0.4, hue 0.1)": (0.4, 0.4, 0.4, 0.1),
    "SimCLR, ImageNet (0.8, 0.8, 0.8, hue 0.2)": (0.8, 0.8, 0.8, 0.2),
    "BYOL (0.4, 0.4, 0.2, hue 0.1)": (0.4, 0.4, 0.2, 0.1),
}
STEPS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
NAMES = ("brightness", "contrast", "saturation", "hue")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the record goes")
    args = parser.parse_args()
    torch.manual_seed(0)
    images = load("cifar10", "test", limit=args.images).images / 255
    record = provenance(f"python eval/jitter.py --images {args.images}") | {
        "images": len(images),
        "difference of a pixel": {name: compare(images, s) for name, s in STRENGTHS.items()},
    }
    (args.results / "jitter.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["difference of a pixel"], indent=2))


def compare(images: Tensor, strengths: tuple[float, ...]) -> dict[str, float]:
    """Mean and 95th percentile of the difference: of all four, and of each alone."""
    found: dict[str, float] = {}
    for name, used in {"all four": strengths, **alone(strengths)}.items():
        jitter = ColorJitterGrayscale(*used)
        ours = jitter(images)
        drawn = [jitter._params[f"{name}_factor"] for name in NAMES]
        rows = zip(images, torch.stack(drawn, 1).tolist(), jitter._params["order"], strict=True)
        theirs = torch.stack([one(*row) for row in rows])
        gap = (ours - theirs).abs()
        found[f"{name}, mean"] = round(gap.mean().item(), 4)
        found[f"{name}, 95 %"] = round(gap.flatten().kthvalue(int(0.95 * gap.numel()))[0].item(), 4)
        found[f"{name}, of the jitter itself"] = round((theirs - images).abs().mean().item(), 4)
    return found


def alone(strengths: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    """Each strength with the others at 0."""
    return {
        name: tuple(s if i == j else 0.0 for j, s in enumerate(strengths))
        for i, name in enumerate(NAMES)
    }


def one(image: Tensor, factors: list[float], order: Tensor) -> Tensor:
    """torchvision's."""
    for i in order.tolist():
        image = STEPS[i](image, factors[i])
    return image


if __name__ == "__main__":
    main()
