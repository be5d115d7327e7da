"""The fast transforms as kornia augmentations: drawn, gated, replayed and composed as its own.

Their parameters are drawn on the processor in float32, wherever the module was moved: a few
numbers an image, so that a seed gives the same views on every device and in every precision.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from kornia.augmentation import GeometricAugmentationBase2D, IntensityAugmentationBase2D
from kornia.constants import Resample
from kornia.geometry.transform import warp_affine
from torch import Tensor

from sslkit.views import functional

Params = dict[str, Tensor]
Range = tuple[float, float]
_CPU: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}  # where draws are made
_FACTORS, _NEUTRAL = ("brightness", "contrast", "saturation", "hue"), (1, 1, 1, 0)
Statistics = tuple[Sequence[float], Sequence[float]]  # mean and deviation of R, G and B


def check_probability(name: str, value: float) -> float:
    """The value, or a ValueError outside 0 to 1."""
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a probability, 0 to 1, not {value!r}")
    return value


def check_range(
    name: str, given: Sequence[float], low: float, high: float = math.inf, *, open: bool = False
) -> Range:
    """The two numbers, or a ValueError where they are out of order or of bounds."""
    pair = isinstance(given, Sequence) and len(given) == 2 and not isinstance(given, str)
    inside = pair and low <= given[0] <= given[1] <= high
    if not inside or (open and given[0] == low):
        first, last = "<" if open else "<=", "" if high == math.inf else f" <= {high:g}"
        raise ValueError(f"{name} must be {low:g} {first} low <= high{last}, not {given}")
    return float(given[0]), float(given[1])


def _around(name: str, given: float | Range, centre: float, low: float, high: float) -> Range:
    """A strength, meant around the neutral value, or a range as it is."""
    if isinstance(given, Sequence):
        return check_range(name, given, low, high)
    if not isinstance(given, int | float) or not 0 <= given <= high - centre:
        limit = "or more" if high == math.inf else f"to {high - centre:g}"
        raise ValueError(f"{name} must be 0 {limit}, or a range, not {given}")
    return max(low, centre - given), centre + given


def _uniform(n: int, limits: Range, same: bool) -> Tensor:
    return torch.empty(1 if same else n, **_CPU).uniform_(*limits).expand(n)


def _gate(n: int, p: float, same: bool) -> Tensor:
    return _uniform(n, (0.0, 1.0), same) < p


class _Drawn(ABC):
    """Draws on the processor; ``plan`` makes tensors of a row an image, ``run`` applies them.

    A gate is part of the plan, so that a batch is not computed twice and then mixed.
    """

    def set_rng_device_and_dtype(self, device: torch.device, dtype: torch.dtype) -> None:
        super().set_rng_device_and_dtype(torch.device("cpu"), torch.float32)  # type: ignore[misc]

    @abstractmethod
    def plan(self, params: Params, device: torch.device) -> tuple[Tensor, ...]:
        """What was drawn, as tensors on the device of the images."""

    @abstractmethod
    def run(self, images: Tensor, *plan: Tensor) -> Tensor:
        """Float images by their plan."""

    def transform_inputs(
        self, input: Tensor, params: Params, flags: Any, transform: Any = None, **kwargs: Any
    ) -> Tensor:
        self.validate_tensor(images := self.transform_tensor(input))  # type: ignore[attr-defined]
        with torch.autocast(images.device.type, enabled=False):
            out = self.run(images.float(), *self.plan({**params, **kwargs}, images.device))
        return (out.clone() if out is images else out).to(images.dtype)


class RandomResizedCropFlip(_Drawn, GeometricAugmentationBase2D):
    """Crop at random, resize and mirror in one resampling: (N, C, H, W) to (N, C, *size).

    Crops are drawn as torchvision draws them (Szegedy et al. 2015, arXiv:1409.4842): ten tries
    at an area and a ratio of the sides, else a crop of the centre. See
    :func:`sslkit.views.functional.resized_crop` for the resampling. As other geometric
    augmentations it carries masks, boxes and keypoints along, and has an inverse.

    Args:
        size: height and width of the result, in pixels.
        scale: least and greatest part of the image's area, above 0, at most 1.
        ratio: least and greatest width over height, above 0.
        flip: probability of mirroring left to right.
        resample: "bilinear" or "bicubic".
        antialias: widen the filter where the crop is larger than the result.
        p: probability of the crop; an image that is spared is resized whole, and not mirrored.
        same_on_batch: one draw for all images.
        keepdim: an image without a batch comes back without one.

    Raises:
        ValueError: a value outside its range, or images whose crops are less than a pixel.

    >>> crop = RandomResizedCropFlip((24, 24), scale=(0.2, 1.0))
    >>> images = torch.randint(0, 256, (8, 3, 40, 50), dtype=torch.uint8)
    >>> views = crop(images)
    >>> views.shape, views.dtype, torch.equal(views, crop(images, params=crop._params))
    (torch.Size([8, 3, 24, 24]), torch.float32, True)
    """

    def __init__(
        self,
        size: tuple[int, int],
        scale: Range = (0.08, 1.0),
        ratio: Range = (3 / 4, 4 / 3),
        flip: float = 0.5,
        *,
        resample: str = "bilinear",
        antialias: bool = True,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(p=1.0, same_on_batch=same_on_batch, keepdim=keepdim)
        if not isinstance(size, Sequence) or len(size) != 2 or min(size) < 1:
            raise ValueError(f"size must be a height and a width of 1 pixel or more, not {size}")
        if resample not in ("bilinear", "bicubic"):
            raise ValueError(f"resample must be bilinear or bicubic, not {resample!r}")
        if resample == "bicubic" and not antialias:
            raise ValueError("resample='bicubic' needs antialias=True")
        self.scale = check_range("scale", scale, 0, 1, open=True)
        self.ratio = check_range("ratio", ratio, 0, open=True)
        self.flip, self.crop = check_probability("flip", flip), check_probability("p", p)
        self.flags = {
            "size": tuple(size),
            "resample": Resample.get(resample),
            "antialias": antialias,
            "align_corners": False,
            "cropped": p,  # kornia's own p is that of leaving the size as it was
        }

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Params:
        """``box``, (N, 4): left, top, width, height in pixels; ``flip``, (N,); ``output_size``."""
        n, height, width = batch_shape[0], *batch_shape[-2:]
        if self.scale[1] * height * width < 1:
            raise ValueError(
                f"crops of {self.scale} of the area of {height} x {width} pixels are smaller "
                "than a pixel"
            )
        m, same = 1 if self.same_on_batch else n, self.same_on_batch
        area = torch.empty(10, m, **_CPU).uniform_(*self.scale) * (height * width)
        ratio = torch.empty(10, m, **_CPU).uniform_(*map(math.log, self.ratio)).exp()
        across, down = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (across >= 1) & (across <= width) & (down >= 1) & (down <= height)
        first = fits.byte().argmax(0, keepdim=True)
        found = fits.any(0)
        across, down = across.gather(0, first)[0], down.gather(0, first)[0]
        left = (torch.rand(m, **_CPU) * (width - across + 1)).floor().minimum(width - across)
        top = (torch.rand(m, **_CPU) * (height - down + 1)).floor().minimum(height - down)
        # In none of ten tries: the centre, as near to the whole as the ratio allows.
        least, most = self.ratio
        wide = min(width, max(1, round(height * most)))
        high = min(height, max(1, round(width / least)))
        centre = ((width - wide) // 2, (height - high) // 2, wide, high)
        box = torch.stack((left, top, across, down), 1)
        box = torch.where(found[:, None], box, torch.tensor(centre, **_CPU))
        flip = _gate(n, self.flip, same)
        if self.crop < 1:
            cropped = _gate(m, self.crop, same)
            box = torch.where(cropped[:, None], box, torch.tensor((0, 0, width, height), **_CPU))
            flip = flip & cropped
        size = torch.tensor(self.flags["size"]).expand(n, 2)  # by this a container tells the shape
        return {"box": box.expand(n, 4), "flip": flip, "output_size": size}

    def describe(self, params: Params) -> list[str]:
        """What was drawn for each image, in words."""
        return [
            f"{w:.0f} x {h:.0f} at {x:.0f}, {y:.0f}" + "\nmirrored" * flip
            for (x, y, w, h), flip in zip(
                params["box"].tolist(), params["flip"].tolist(), strict=True
            )
        ]

    def transform_tensor(self, input: Tensor, **kwargs: Any) -> Tensor:
        if input.dtype == torch.uint8:
            return input if input.ndim == 4 else input.reshape(-1, *input.shape[-3:])
        return super().transform_tensor(input, **kwargs)

    def validate_tensor(self, input: Tensor) -> None:
        if input.ndim != 4:
            raise ValueError(f"images must be (N, C, H, W), not {tuple(input.shape)}")

    def compute_transformation(self, input: Tensor, params: Params, flags: Any) -> Tensor:
        height, width = flags["size"]
        left, top, across, down = params["box"].unbind(1)
        x, y = width / across, height / down
        sign = 1 - 2 * params["flip"].to(x)
        matrix = x.new_zeros(len(x), 3, 3)
        # Half-pixel centres: x' = (x - left + 1/2) scale - 1/2, mirrored to width - 1 - x'.
        matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2] = sign * x, y, 1
        matrix[:, 0, 2] = sign * ((0.5 - left) * x - width / 2) + (width - 1) / 2
        matrix[:, 1, 2] = (0.5 - top) * y - 0.5
        return matrix.to(input.device, non_blocking=True)

    def plan(self, params: Params, device: torch.device) -> tuple[Tensor, ...]:
        return functional.crop_plan(params["box"], params["flip"], self.flags["size"], device)

    def run(self, images: Tensor, *plan: Tensor, flags: Any = None) -> Tensor:
        flags = flags or self.flags
        mode, antialias = flags["resample"].name.lower(), flags["antialias"]
        return functional.apply_crop(images, *plan, mode=mode, antialias=antialias)

    def apply_transform(
        self, input: Tensor, params: Params, flags: Any, transform: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            out = self.run(input, *self.plan(params, input.device), flags=flags)
        return out.to(input.dtype) if input.is_floating_point() else out

    def transform_inputs(
        self, input: Tensor, params: Params, flags: Any, transform: Any = None, **kwargs: Any
    ) -> Tensor:
        return GeometricAugmentationBase2D.transform_inputs(
            self, input, params, flags, transform, **kwargs
        )

    def inverse_transform(
        self, input: Tensor, flags: Any, transform: Tensor | None = None, size: Any = None
    ) -> Tensor:
        assert transform is not None
        mode = flags["resample"].name.lower()
        return warp_affine(input, transform[:, :2], size, mode=mode, align_corners=True)


class ColorJitterGrayscale(_Drawn, IntensityAugmentationBase2D):
    """Colour jitter, then grayscale, then normalisation, as one 3x4 matrix an image.

    Factors and their order are drawn as torchvision draws them, for each image. Two things
    differ: values are clamped to [0, 1] once, at the end, not after each factor (in spared
    images as well), and hue turns about the axis of greys, not in HSV. On CIFAR-10 a pixel
    differs by 0.011 on average at the strength of SimCLR there, where the jitter itself moves
    it by 0.10: ``eval/results/jitter.json``. See :func:`sslkit.views.functional.color_jitter`.

    Args:
        brightness: strength b, a factor from max(0, 1 - b) to 1 + b, or the range itself.
        contrast: likewise.
        saturation: likewise.
        hue: strength h, a turn from -h to h, at most 0.5; or the range.
        grayscale: probability that an image loses its colour, jittered or not.
        normalize: mean and deviation of the three channels to end with; None for [0, 1].
        p: probability of the jitter.
        same_on_batch: one draw for all images.
        keepdim: an image without a batch comes back without one.

    Raises:
        ValueError: a value outside its range, or images that are not of three channels.

    >>> jitter = ColorJitterGrayscale(0.8, 0.8, 0.8, 0.2, grayscale=0.2, p=0.8)
    >>> images = torch.rand(8, 3, 32, 32)
    >>> torch.equal(jitter(images), jitter(images, params=jitter._params))
    True
    """

    def __init__(
        self,
        brightness: float | Range = 0.0,
        contrast: float | Range = 0.0,
        saturation: float | Range = 0.0,
        hue: float | Range = 0.0,
        grayscale: float = 0.0,
        *,
        normalize: Statistics | None = None,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        p = check_probability("p", p)
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.brightness = _around("brightness", brightness, 1, 0, math.inf)
        self.contrast = _around("contrast", contrast, 1, 0, math.inf)
        self.saturation = _around("saturation", saturation, 1, 0, math.inf)
        self.hue = _around("hue", hue, 0, -0.5, 0.5)
        self.grayscale = check_probability("grayscale", grayscale)
        self.normalize = normalize

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Params:
        """The four factors and ``grayscale``, each (N,), and ``order``, (N, 4)."""
        n, same = batch_shape[0], self.same_on_batch
        return {
            "brightness_factor": _uniform(n, self.brightness, same),
            "contrast_factor": _uniform(n, self.contrast, same),
            "saturation_factor": _uniform(n, self.saturation, same),
            "hue_factor": _uniform(n, self.hue, same),
            "order": torch.rand(1 if same else n, 4, **_CPU).argsort(1).expand(n, 4),
            "grayscale": _gate(n, self.grayscale, same),
        }

    def describe(self, params: Params) -> list[str]:
        """What was drawn for each image, in words."""
        grey = params["grayscale"].bool().tolist()
        lines = []
        for factors, is_grey in zip(self._factors(params).T.tolist(), grey, strict=True):
            drawn = zip(_FACTORS, factors, _NEUTRAL, strict=True)
            words = [
                f"{name} {factor:{'+' if name == 'hue' else ''}.2f}"
                for name, factor, neutral in drawn
                if factor != neutral and not (is_grey and name in ("saturation", "hue"))
            ]
            lines.append("\n".join(words + ["grey"] * is_grey))
        return lines

    def plan(self, params: Params, device: torch.device) -> tuple[Tensor, ...]:
        order, grayscale = params["order"], params["grayscale"]
        factors, statistics = self._factors(params), self._statistics()
        return functional.color_plan(factors, order, grayscale, *statistics, device)

    def run(self, images: Tensor, *plan: Tensor, out: Tensor | None = None) -> Tensor:
        if images.shape[1] != 3:
            raise ValueError(f"colour jitter takes images of 3 channels, not {images.shape[1]}")
        if self.p == self.grayscale == 0 and self.normalize is None:
            return images
        mean, std = self._statistics()
        return functional.apply_color(images, *plan, mean=mean, std=std, out=out)

    def _statistics(self) -> Statistics:
        return self.normalize or ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def _factors(self, params: Params) -> Tensor:
        """(4, N): those drawn, or 1, 1, 1 and 0 where spared."""
        factors = torch.stack([params[f"{name}_factor"] for name in _FACTORS])
        if self.p < 1:
            neutral = factors.new_tensor(_NEUTRAL)[:, None]
            return torch.where(params["batch_prob"] > 0.5, factors, neutral)
        return factors


class GaussianBlur(_Drawn, IntensityAugmentationBase2D):
    """Blur with a Gaussian of its own width for each image, the border mirrored.

    Args:
        kernel_size: taps, an odd number.
        sigma: least and greatest standard deviation in pixels, above 0.
        p: probability of the blur; only images that it chose are worked on.
        same_on_batch: one draw for all images.
        keepdim: an image without a batch comes back without one.

    Raises:
        ValueError: a value outside its range, or images no larger than half the kernel.

    >>> blur = GaussianBlur(5, (0.1, 2.0), p=0.5)
    >>> blur(torch.rand(4, 3, 8, 8)).shape
    torch.Size([4, 3, 8, 8])
    """

    def __init__(
        self,
        kernel_size: int,
        sigma: Range = (0.1, 2.0),
        *,
        p: float = 0.5,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        p = check_probability("p", p)
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and 1 or more, not {kernel_size}")
        self.sigma = check_range("sigma", sigma, 0, open=True)
        self.flags = {"kernel_size": kernel_size}

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Params:
        """``sigma``, (N,), in pixels."""
        return {"sigma": _uniform(batch_shape[0], self.sigma, self.same_on_batch)}

    def describe(self, params: Params) -> list[str]:
        """What was drawn for each image, in words."""
        chosen = (params["batch_prob"] > 0.5).tolist()
        return [
            f"blur {sigma:.2f} px" * on
            for sigma, on in zip(params["sigma"].tolist(), chosen, strict=True)
        ]

    def plan(self, params: Params, device: torch.device) -> tuple[Tensor, ...]:
        return params["sigma"], params["batch_prob"] > 0.5

    def run(self, images: Tensor, *plan: Tensor) -> Tensor:
        size, (sigma, chosen) = self.flags["kernel_size"], plan
        if min(images.shape[2:]) <= size // 2:
            height, width = images.shape[2:]
            raise ValueError(
                f"a kernel of {size} taps needs images of more than {size // 2} pixels a side, "
                f"not {height} x {width}"
            )
        if torch.compiler.is_compiling():
            gate = chosen.to(images.device, non_blocking=True).view(-1, 1, 1, 1)
            return torch.where(gate, functional.gaussian_blur(images, sigma, size), images)
        if not len(rows := chosen.nonzero()[:, 0]):
            return images
        sigma, rows = sigma[rows], rows.to(images.device, non_blocking=True)
        blurred = functional.gaussian_blur(images[rows], sigma, size)
        return images.index_copy(0, rows, blurred)


class Solarize(_Drawn, IntensityAugmentationBase2D):
    """Invert the pixels at or above a threshold (Grill et al. 2020, arXiv:2006.07733).

    Args:
        threshold: least and greatest threshold, 0 to 1; BYOL's is 0.5.
        p: probability of the transform.
        same_on_batch: one draw for all images.
        keepdim: an image without a batch comes back without one.

    Raises:
        ValueError: a value outside its range.

    >>> Solarize(p=1.0)(torch.tensor([[[[0.2, 0.75]]]])).flatten()
    tensor([0.2000, 0.2500])
    """

    def __init__(
        self,
        threshold: Range = (0.5, 0.5),
        *,
        p: float = 0.5,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        p = check_probability("p", p)
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.threshold = check_range("threshold", threshold, 0, 1)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Params:
        """``threshold``, (N,)."""
        return {"threshold": _uniform(batch_shape[0], self.threshold, self.same_on_batch)}

    def describe(self, params: Params) -> list[str]:
        """What was drawn for each image, in words."""
        return ["solarized" * on for on in (params["batch_prob"] > 0.5).tolist()]

    def plan(self, params: Params, device: torch.device) -> tuple[Tensor, ...]:
        threshold = torch.where(params["batch_prob"] > 0.5, params["threshold"], math.inf)
        return (threshold.to(device, non_blocking=True),)

    def run(self, images: Tensor, *plan: Tensor) -> Tensor:
        return functional.solarize(images, *plan)
