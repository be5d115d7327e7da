"""Images by their rows, cropped at random to train on, or at the centre to be scored."""

import math
import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import center_crop

from sslkit.data import ArrayDataset
from sslkit.data import decode as files
from sslkit.data.images import ImageError, LabelledImages
from sslkit.data.storage import one_line
from sslkit.views import EvaluationView, View
from sslkit.views.base import unit


class Images:
    """The images of a data set by their rows, as normalised views on the device; its labels."""

    def __init__(
        self,
        dataset: Dataset,
        finish: EvaluationView,
        min_scale: float,
        device: torch.device | str,
        workers: int | None,
    ) -> None:
        self.device = torch.empty(0, device=device).device  # with its index
        self.dataset = dataset.to(self.device) if isinstance(dataset, ArrayDataset) else dataset
        if workers is None:
            workers = min(os.cpu_count() or 1, 8) if isinstance(dataset, LabelledImages) else 0
        self.finish, self.workers = finish, workers
        # A file is read at a scale where its smallest crops have as many pixels as the view.
        self.least = math.ceil(finish.size * max(256 / 224, min_scale**-0.5))
        labels = getattr(dataset, "labels", None)
        if labels is None:
            labels = [torch.as_tensor(dataset[i][1]) for i in range(len(dataset))]  # type: ignore[arg-type]
            labels = torch.stack(labels) if labels else torch.empty(0, dtype=torch.int64)
        self.labels: Tensor = torch.as_tensor(labels).cpu()

    def views(self, batches: Iterable[Tensor], view: View, seed: int) -> Iterator[Tensor]:
        """A batch of views for each batch of rows; what they draw follows from the seed."""
        if isinstance(self.dataset, ArrayDataset):
            view.manual_seed(seed)
            images = self.dataset.images
            made: Iterator[Tensor] = (view(images[rows.to(self.device)]) for rows in batches)
        else:
            made = self._read(batches, view, seed)
        for batch in made:
            normalised = self.finish(batch.to(self.device, non_blocking=True))
            yield normalised.contiguous(memory_format=torch.channels_last)

    def _read(self, batches: Iterable[Tensor], view: View, seed: int) -> Iterator[Tensor]:
        draw = count(seed << 32)
        loader = DataLoader(
            _Viewed(self.dataset, view, self.least),
            batch_sampler=([(row, next(draw)) for row in rows.tolist()] for rows in batches),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or it draws from torch's
        )
        try:
            yield from loader
        except ValueError as error:  # a worker's has its traceback before the message
            message = str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
            raise ValueError(message) from error


class _Viewed(Dataset):
    """Views one by one, uint8 (3, size, size), for worker processes: images may differ in size.

    An item is a row and the seed of its view: the number of workers changes nothing.
    """

    def __init__(self, dataset: Dataset, view: View, least: int) -> None:
        self.dataset, self.view, self.least = dataset, view, least

    def __getitem__(self, item: tuple[int, int]) -> Tensor:
        row, seed = item
        if isinstance(self.dataset, LabelledImages):
            image = _whole(self.dataset, row, self.least)
        else:
            image = self.dataset[row][0]
        return (self.view.manual_seed(seed)(image[None])[0] * 255).round().byte()


class Centre(View):
    """Shorter side to 256 / 224 of ``size``, centre crop; images of ``size`` stay as they are."""

    random = False

    def __init__(self, size: int) -> None:
        super().__init__(size, None)
        self.resize = EvaluationView(round(size * 256 / 224), None)

    def make(self, images: Tensor) -> Tensor:
        whole = images.shape[-2:] == (self.size, self.size)
        return unit(images) if whole else center_crop(self.resize(images), [self.size, self.size])


def _whole(data: LabelledImages, row: int, least: int) -> Tensor:
    """The whole image, upright, uint8 (3, H, W).

    A JPEG is decoded at 1/8, 1/4 or 1/2 where that leaves ``least`` pixels a side.

    Raises:
        ImageError: it cannot be decoded.
    """
    what = f"image {row} of {data.name}"
    source: Path | BytesIO | Image.Image | None = None
    try:
        source = data.sources[row]
        if isinstance(source, Image.Image):
            return _upright(source)
        what = f"the image {str(source)!r}" if isinstance(source, Path) else what
        with files.quiet(), files.open_image(source, math.ceil(least / 2)) as image:
            return _upright(image)
    except files.FAULTS as error:
        ours = isinstance(source, Path | BytesIO)
        why = files.reason(source, error) if ours else one_line(error)
        raise ImageError(f"cannot read {what}: {why}") from error


def _upright(image: Image.Image) -> Tensor:
    with files.quiet():
        image.load()
        rgb, turn = files._rgb(image), files.UPRIGHT.get(files._orientation(image))
        upright = rgb if turn is None else rgb.transpose(turn)
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1)
