"""The arithmetic of the fast transforms: a batch of images, one set of parameters an image.

Cropping and colour come in two steps, so that a pipeline that works through a batch in parts
takes the first step once: a plan, tensors of a row an image, and its application.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of R, G and B (ITU-R BT.601)
# Above this many pixels an image or view, a processor resizes image by image: a matrix product
# does work in proportion to a side cubed.
LARGE = 128 * 128


def resized_crop(
    images: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    flip: Tensor | None = None,
    mode: str = "bilinear",
    antialias: bool = True,
) -> Tensor:
    """Crop, resize and mirror in one resampling: (N, C, H, W) to float32 (N, C, *size).

    Two small matrix products an image, one for the rows and one for the columns; each matrix
    holds the weights of the filter, the crop and the mirroring. Rows that are only mixed two by
    two are gathered instead. Large views on a processor are resized one by one by torch's
    filter, which is of the same weights; of uint8 images a bilinear view is rounded to 1/255
    there.

    Args:
        images: uint8, or float in [0, 1].
        boxes: (N, 4), left, top, width and height in whole pixels, inside the image.
        size: height and width of the result.
        flip: (N,), true where the result is mirrored left to right.
        mode: "bilinear", "bicubic" (Keys' with a = -0.5, which needs ``antialias``) or "nearest".
        antialias: widen the filter where the crop is larger than the result, as Pillow does.

    >>> images = torch.arange(8.0).view(1, 1, 2, 4)
    >>> resized_crop(images, torch.tensor([[1, 0, 2, 2]]), (2, 2), flip=torch.tensor([True]))
    tensor([[[[2., 1.],
              [6., 5.]]]])
    """
    if flip is None:
        flip = torch.zeros(len(boxes), dtype=torch.bool)
    plan = crop_plan(boxes, flip, size, images.device)
    return apply_crop(images, *plan, mode=mode, antialias=antialias)


def crop_plan(
    boxes: Tensor, flip: Tensor, size: tuple[int, int], device: torch.device
) -> tuple[Tensor, ...]:
    """Boxes (N, 4), flip (N,), and where the result's pixels lie: rows (N, h), columns (N, w)."""
    boxes = boxes.to(device, torch.float32, non_blocking=True)
    flip = flip.to(device, torch.bool, non_blocking=True)
    left, top, across, down = boxes.split(1, 1)
    height, width = size
    down_grid, grid = (torch.arange(n, device=device, dtype=torch.float32) + 0.5 for n in size)
    grid = torch.where(flip[:, None], grid.flip(0), grid)
    rows = torch.addcmul(top, down_grid, down / height)
    return boxes, flip, rows, torch.addcmul(left, grid, across / width)


def apply_crop(
    images: Tensor,
    boxes: Tensor,
    flip: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    mode: str,
    antialias: bool,
) -> Tensor:
    """A plan of ``crop_plan`` on its images: see ``resized_crop``."""
    height, width = rows.shape[1], columns.shape[1]
    h, w = images.shape[2:]
    each = images.device.type == "cpu" and max(h * w, height * width) > LARGE
    if each and mode != "nearest" and not torch.compiler.is_compiling():
        return _crop_each(images, boxes, flip, (height, width), mode, antialias)
    scale = 1 / 255 if images.dtype == torch.uint8 else 1.0
    if mode == "nearest":
        images = images.take_along_dim(rows.long()[:, None, :, None], 2)
        return images.take_along_dim(columns.long()[:, None, None, :], 3) * scale
    left, top, across, down = boxes.split(1, 1)
    if mode == "bilinear" and (h <= height or not antialias):
        images = _mix_two_rows(images, _inside(rows, top, down))
    else:
        weights = _weights(rows, top, down, h, mode, antialias)
        images = torch.einsum("nij,ncjk->ncik", weights, images.float())
    matrix = _weights(columns, left, across, w, mode, antialias, scale).transpose(1, 2)
    out = torch.bmm(images.flatten(1, 2), matrix).view(-1, images.shape[1], height, width)
    return out.clamp_(0, 1) if mode == "bicubic" else out


def _inside(centres: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """Centres to pixel numbers, those beyond the crop's outer pixels moved onto them."""
    return (centres - 0.5).clamp_(start, start + (length - 1))


def _mix_two_rows(images: Tensor, at: Tensor) -> Tensor:
    """Linear interpolation of (N, C, H, W) at the rows (N, h): (N, C, h, W) in float32."""
    n, c, h, w = images.shape
    first = at.long()
    start = torch.arange(0, n * c * h, h, device=at.device).view(n, c, 1)
    index = torch.stack((first, (first + 1).clamp_(max=h - 1)), 2).flatten(1)  # (N, 2 h)
    part = at - first
    weights = torch.stack((1 - part, part), 2).flatten(1)[:, None].expand(-1, c, -1)
    mixed = F.embedding_bag(
        (index[:, None] + start).view(-1, 2),
        images.float().reshape(n * c * h, w),
        mode="sum",
        per_sample_weights=weights.reshape(-1, 2),
    )
    return mixed.view(n, c, -1, w)


def _weights(
    centres: Tensor,
    start: Tensor,
    length: Tensor,
    n: int,
    mode: str,
    antialias: bool,
    scale: float = 1.0,
) -> Tensor:
    """The resampling of one axis of n pixels as matrices, (N, out, n); rows sum to ``scale``."""
    out, pixels = centres.shape[1], torch.arange(n, device=start.device)
    if mode == "bilinear" and (n <= out or not antialias):
        at = _inside(centres, start, length)
        return (at[:, :, None] - pixels).abs_().clamp_(max=1).mul_(-scale).add_(scale)
    widen = (length / out).clamp(min=1)[:, :, None]
    x = ((centres - 0.5)[:, :, None] - pixels).abs_() / widen
    if mode == "bilinear":
        x = x.clamp_(max=1).neg_().add_(1)
    else:
        near = (1.5 * x - 2.5) * x * x + 1
        x = torch.where(x < 1, near, ((-0.5 * x + 2.5) * x - 4) * x + 2).where(x < 2, 0.0)
    within = (pixels >= start) & (pixels < start + length)
    x *= within[:, None]
    return x * (scale / x.sum(2, keepdim=True))


def _crop_each(
    images: Tensor,
    boxes: Tensor,
    flip: Tensor,
    size: tuple[int, int],
    mode: str,
    antialias: bool,
) -> Tensor:
    is_bytes = images.dtype == torch.uint8
    images = images if is_bytes else images.float()
    out = torch.empty(*images.shape[:2], *size, dtype=torch.float32)
    crops = zip(boxes.int().tolist(), flip.tolist(), strict=True)
    for i, ((left, top, across, down), mirrored) in enumerate(crops):
        crop = images[i : i + 1, :, top : top + down, left : left + across]
        if mode == "bicubic":  # that of bytes clamps where it overshoots half-way
            crop = crop.float()
        elif is_bytes:  # torch's quick path is that of bytes side by side
            crop = crop.contiguous(memory_format=torch.channels_last)
        view = F.interpolate(crop, size, mode=mode, antialias=antialias)
        out[i] = view[0].flip(2) if mirrored else view[0]
    if is_bytes:
        out.mul_(1 / 255)
    return out.clamp_(0, 1) if mode == "bicubic" else out


# The identity, the projection on grey, and the turn about it: hue is exp(angle turn).
_COLOR = torch.stack(
    (
        torch.eye(3, dtype=torch.float64),
        torch.full((3, 3), 1 / 3, dtype=torch.float64),
        torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / 3**0.5,
    )
).float()


def color_jitter(
    images: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor,
    *,
    order: Tensor | None = None,
    grayscale: Tensor | None = None,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Colour jitter, grayscale and normalisation as one 3x4 matrix an image.

    Brightness multiplies, contrast moves away from the image's mean luma, saturation from the
    pixel's luma, and hue turns the colour about the axis of greys: torchvision's operations, but
    for hue, which it turns in the hexagon of HSV. Their matrices are multiplied in the order
    given; the result is clamped to [0, 1] once, at the end, where torchvision clamps after each.

    Args:
        images: (N, 3, H, W) float in [0, 1].
        brightness: (N,), 0 or more; 1 changes nothing. So contrast, and saturation, of which 0
            leaves no colour.
        hue: (N,), in turns, -0.5 to 0.5; 0 changes nothing.
        order: (N, 4), permutations of 0 to 3, those four; by default as they stand here.
        grayscale: (N,), true where the jittered image then loses its colour.
        mean: taken off each channel after the clamp.
        std: divided out after that.

    >>> half, one, zero = torch.tensor([[0.5], [1.0], [0.0]])
    >>> color_jitter(torch.ones(1, 3, 1, 1), half, one, half, zero).flatten()
    tensor([0.5000, 0.5000, 0.5000])
    """
    factors = torch.stack((brightness, contrast, saturation, hue))
    n = factors.shape[1]
    order = torch.arange(4).expand(n, 4) if order is None else order
    grayscale = torch.zeros(n, dtype=torch.bool) if grayscale is None else grayscale
    plan = color_plan(factors, order, grayscale, mean, std, images.device)
    return apply_color(images, *plan, mean=mean, std=std)


def color_plan(
    factors: Tensor,
    order: Tensor,
    grayscale: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Factors (4, N) and their order to the matrices of a pixel and of the mean, and an offset.

    The matrices are (N, 3, 3), the offset (N, 3, 1).
    """
    factors = factors.to(device, torch.float32, non_blocking=True)
    brightness, contrast, saturation, hue = factors[:, :, None, None].unbind()
    eye, grey, turn = _COLOR.to(device, non_blocking=True).unbind()
    angle = hue * (2 * torch.pi)
    hue = torch.lerp(grey, eye, angle.cos()).addcmul_(angle.sin(), turn)
    # Brightness commutes with all, and contrast and saturation with each other, as they keep the
    # luma; it only counts whether the luma that they see is that of before or after the hue.
    place = order.argsort(1)
    contrast_after, saturation_after = (
        (place[:, i] > place[:, 3]).to(device, non_blocking=True)[:, None, None] for i in (1, 2)
    )
    luma = torch.tensor([LUMA], dtype=torch.float32).to(device, non_blocking=True)
    seen = torch.where(saturation_after, luma @ hue, luma)  # (N, 1, 3)
    matrix = saturation * hue + (1 - saturation) * seen
    final = luma @ matrix
    gate = grayscale.to(device, torch.bool, non_blocking=True)[:, None, None]
    matrix = torch.where(gate, final, matrix) * (brightness * contrast)
    seen = torch.where(contrast_after, final, luma)
    of_mean = (brightness * (1 - contrast) * seen).expand(-1, 3, -1)
    statistics = torch.tensor((mean, std), dtype=torch.float32).to(device, non_blocking=True)
    offset, scale = statistics[:, None, :, None]
    return matrix / scale, of_mean / scale, (-offset / scale).expand(len(matrix), 3, 1)


def apply_color(
    images: Tensor,
    matrix: Tensor,
    of_mean: Tensor,
    offset: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor | None = None,
) -> Tensor:
    """A plan of ``color_plan`` on its images, into ``out``: see ``color_jitter``."""
    flat = images.flatten(2)
    bias = torch.baddbmm(offset, of_mean, flat.mean(2, keepdim=True))
    flat = torch.baddbmm(bias, matrix, flat, out=None if out is None else out.flatten(2))
    if any(mean) or any(s != 1 for s in std):
        for i, (m, s) in enumerate(zip(mean, std, strict=True)):
            flat[:, i].clamp_(-m / s, (1 - m) / s)
    else:
        flat.clamp_(0, 1)
    return flat.view(images.shape)


def gaussian_blur(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """A Gaussian of its own width for each image, the border mirrored.

    Args:
        images: (N, C, H, W) float.
        sigma: (N,), standard deviations in pixels, above 0.
        kernel_size: taps, odd; half of them must be fewer than the shorter side.

    >>> gaussian_blur(torch.eye(3)[None, None], torch.tensor([0.5]), 3)[0, 0, 0]
    tensor([0.6647, 0.2515, 0.0454])
    """
    n, c, h, w = images.shape
    half = kernel_size // 2
    taps = torch.arange(-half, half + 1, device=images.device)
    sigma = sigma.to(images, non_blocking=True)
    kernel = (-0.5 * (taps / sigma[:, None]) ** 2).softmax(1).repeat_interleave(c, 0)
    flat = F.pad(images.reshape(1, n * c, h, w), (half, half, half, half), mode="reflect")
    flat = F.conv2d(flat, kernel.view(n * c, 1, 1, -1), groups=n * c)
    return F.conv2d(flat, kernel.view(n * c, 1, -1, 1), groups=n * c).view(n, c, h, w)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at or above the threshold: (N, C, H, W) in [0, 1], (N,) thresholds.

    >>> solarize(torch.tensor([0.2, 0.5, 1.0]).view(1, 1, 1, 3), torch.tensor([0.5])).flatten()
    tensor([0.2000, 0.5000, 0.0000])
    """
    threshold = threshold.to(images, non_blocking=True).view(-1, 1, 1, 1)
    return torch.where(images >= threshold, 1 - images, images)
