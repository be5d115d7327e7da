"""One random view an image: what the presets are made of."""

import math
from typing import Any

import torch
from kornia.enhance import normalize as normalized
from torch import Tensor, nn

from sslkit.views.transforms import (
    ColorJitterGrayscale,
    GaussianBlur,
    Params,
    RandomResizedCropFlip,
    Range,
    Solarize,
    Statistics,
    check_probability,
    check_range,
)

# A processor works through a batch in parts of about so many numbers: they stay in its caches, and
# the allocator hands out the same pages again rather than new ones, which cost more than the work.
WORKING_SET = 2**19


class Augment(nn.Module):
    """Crop, flip, colour jitter, grayscale, blur, solarize and normalise, each when asked for.

    Args:
        size: pixels of a side of the view.
        scale: least and greatest part of the image's area that a crop covers.
        ratio: least and greatest width over height of a crop.
        flip: probability of mirroring left to right.
        jitter: strengths of brightness, contrast, saturation and hue, or None.
        jitter_p: probability of the jitter.
        grayscale: probability that a view loses its colour.
        blur: probability of a Gaussian blur, its kernel a tenth of the size.
        sigma: least and greatest width of the blur, in pixels.
        solarize: probability of inverting what is 0.5 or more.
        resample: "bilinear" or "bicubic".
        normalize: mean and deviation to end with, or None.

    Raises:
        ValueError: a value outside its range.

    >>> Augment(32, jitter=(0.4, 0.4, 0.4, 0.1))(torch.rand(2, 3, 40, 50)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        size: int,
        *,
        scale: Range = (0.08, 1.0),
        ratio: Range = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: tuple[float, float, float, float] | None = None,
        jitter_p: float = 0.8,
        grayscale: float = 0.0,
        blur: float = 0.0,
        sigma: Range = (0.1, 2.0),
        solarize: float = 0.0,
        resample: str = "bilinear",
        normalize: Statistics | None = None,
    ) -> None:
        super().__init__()
        for name, p in (("jitter_p", jitter_p), ("blur", blur), ("solarize", solarize)):
            check_probability(name, p)
        if jitter is not None and len(jitter) != 4:
            raise ValueError(
                "jitter must be the strengths of brightness, contrast, saturation and hue, not "
                f"{jitter}"
            )
        sigma = check_range("sigma", sigma, 0, open=True)
        self.size = size
        crop = RandomResizedCropFlip((size, size), scale, ratio, flip, resample=resample)
        self.steps: Any = nn.ModuleList([crop])
        factors, p = (jitter, jitter_p) if jitter else ((0.0, 0.0, 0.0, 0.0), 0.0)
        # Blurring commutes with normalising, which is then part of the jitter's matrix;
        # solarizing does not.
        folded = None if solarize else normalize
        self.normalize = normalize if solarize else None
        if jitter or grayscale or folded:
            self.steps.append(ColorJitterGrayscale(*factors, grayscale, normalize=folded, p=p))
        if blur:
            self.steps.append(GaussianBlur(size // 20 * 2 + 1, sigma, p=blur))
        if solarize:
            self.steps.append(Solarize(p=solarize))
        self.drawn: list[Params] = []

    def resize(self, size: int) -> None:
        """Views of another size from now on; a blur keeps its width in pixels."""
        self.size = size
        self.steps[0].flags["size"] = (size, size)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), uint8 or float32 in [0, 1], to (N, 3, size, size), without gradient."""
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
            raise ValueError(f"images must be (N, 3, H, W), not {tuple(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images must be uint8 or float in [0, 1], not {images.dtype}")
        with torch.autocast(images.device.type, enabled=False):
            return self._augmented(images)

    def _augmented(self, images: Tensor) -> Tensor:
        n, side = len(images), self.size
        self._draw(images.shape)
        plans = [s.plan(p, images.device) for s, p in zip(self.steps, self.drawn, strict=True)]
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return self._made(images, plans)
        out = torch.empty(n, 3, side, side, dtype=torch.float32)
        parts = math.ceil(n / max(4, WORKING_SET // (3 * side * side)))
        for i in range(parts):
            some = slice(n * i // parts, n * (i + 1) // parts)
            self._made(images[some], [tuple(t[some] for t in plan) for plan in plans], out[some])
        return out

    @torch.compiler.disable
    def _draw(self, shape: torch.Size) -> None:
        self.drawn = []
        for step in self.steps:
            self.drawn.append(step.forward_parameters(shape))
            shape = torch.Size((shape[0], 3, self.size, self.size))

    def _made(
        self, images: Tensor, plans: list[tuple[Tensor, ...]], out: Tensor | None = None
    ) -> Tensor:
        for i, (step, plan) in enumerate(zip(self.steps, plans, strict=True)):
            last = i == len(plans) - 1 and isinstance(step, ColorJitterGrayscale)
            images = step.run(images, *plan, out=out) if last else step.run(images, *plan)
        if self.normalize is not None:
            statistics = torch.tensor(self.normalize, dtype=images.dtype)
            images = normalized(images, *statistics.to(images.device, non_blocking=True))
        if out is not None and images.data_ptr() != out.data_ptr():
            out.copy_(images)
        return images

    def captions(self) -> list[str]:
        """What was drawn for each image of the last call, line by line."""
        if not self.drawn:
            return []
        described = [s.describe(p) for s, p in zip(self.steps, self.drawn, strict=True)]
        return ["\n".join(filter(None, lines)) for lines in zip(*described, strict=True)]
