"""Labelled images that are decoded when asked for: files, or what another library hands out."""

import copy
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch.utils.data import Dataset

from sslkit.data import decode as files
from sslkit.data.storage import one_line


class ImageError(OSError, ValueError):
    """An image that cannot be read, in one line that names it.

    It stays that line where a DataLoader raises it anew out of a worker process, with the text
    of the worker's traceback for its message.

    >>> str(ImageError("Caught ImageError in DataLoader worker 0.\\nTraceback:\\ncannot read 'a'"))
    "cannot read 'a'"
    """

    def __init__(self, text: str) -> None:
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(text.strip().rpartition("\n")[2].removeprefix(name))


class Sources(Protocol):
    """Image i at [i]: a file, the content of one, or a decoded picture."""

    def __getitem__(self, index: int, /) -> Path | BytesIO | Image.Image: ...


class LabelledImages(Dataset):
    """Images with their labels, each decoded when asked for, as ``ImageFolder`` decodes.

    The shorter side becomes ``size`` pixels (bicubic, antialiased), the longer one is cropped to
    its centre. No image takes the place of a damaged one: a score counts each exactly once.

    Args:
        sources: image i at [i]: a path, the bytes of a file as BytesIO, or a PIL image.
        labels: int64 (N,), or (N, C) with 1 present, 0 absent, -1 present only as difficult.
        classes: the name of each label.
        size: side of the square in pixels.
        name: of the set, which an error says where an image has no path.

    Attributes:
        paths: the files, or None where the sources are none.
        fingerprint: what else than the paths tells the images from others, or None.
        queries: of images to test with, bool (N,): which are searched for among the others, the
            gallery; or None, where each is searched for among all others.

    >>> data = LabelledImages([Path("cat.png")], torch.tensor([0]), ["cat"])
    >>> len(data), data.labels, data.classes, data.size, data.paths[0].name
    (1, tensor([0]), ('cat',), 224, 'cat.png')
    """

    def __init__(
        self,
        sources: Sequence[Path] | Sources,
        labels: torch.Tensor,
        classes: Sequence[str],
        size: int = 224,
        name: str = "the set",
    ) -> None:
        self.sources, self.labels, self.classes = sources, labels, tuple(classes)
        self.size, self.name = size, name
        paths = [p for p in sources if isinstance(p, Path)] if isinstance(sources, list) else []
        self.paths: list[Path] | None = paths if len(paths) == len(labels) else None
        self.fingerprint: str | None = None
        self.queries: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int | torch.Tensor]:
        """The image, uint8 (3, size, size), and its label: an int, or int64 (C,).

        Raises:
            IndexError: ``index`` is out of range.
            ImageError: the image cannot be decoded; a ValueError, and an OSError.
        """
        index = range(len(self))[index]
        what, label = f"image {index} of {self.name}", self.labels[index]
        source: Path | BytesIO | Image.Image | None = None
        try:
            source = self.sources[index]
            if isinstance(source, Image.Image):
                image = files.square(source, self.size)
            else:
                what = f"the image {str(source)!r}" if isinstance(source, Path) else what
                image = files.decode(source, self.size)
        except files.FAULTS as error:
            if isinstance(source, Path | BytesIO):
                why = files.reason(source, error)
            else:  # the library it comes from failed
                why = one_line(error)
            raise ImageError(f"cannot read {what}: {why}") from error
        return image, label if label.ndim else int(label)

    def head(self, n: int | None) -> "LabelledImages":
        """The first ``n`` images, or all of them."""
        return self._at(torch.arange(len(self))[:n])

    def drawn(self, n: int) -> "LabelledImages":
        """``n`` of the images, always the same, in their order: files often lie class by class."""
        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:n]
        return self._at(rows.sort().values)

    def _at(self, rows: torch.Tensor) -> "LabelledImages":
        part, chosen = copy.copy(self), rows.tolist()
        part.labels = self.labels[rows]
        part.sources = _Chosen(self.sources, chosen)
        part.paths = self.paths and [self.paths[i] for i in chosen]
        part.fingerprint = self.fingerprint and f"{self.fingerprint} {chosen}"
        part.queries = None if self.queries is None else self.queries[rows]
        return part


class _Chosen:
    """Some of the images of a source, none of which is read before it is asked for."""

    def __init__(self, sources: Sequence[Path] | Sources, rows: list[int]) -> None:
        self.sources, self.rows = sources, rows

    def __getitem__(self, index: int) -> Path | BytesIO | Image.Image:
        return self.sources[self.rows[index]]
