"""Features on disk: extracted once for the same weights, data and view, then mapped to memory."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from sslkit.backbones import Backbone, describe
from sslkit.evaluation.feature_files import FeatureFiles
from sslkit.evaluation.features import Features, PooledLayers, by_layer, extract, extract_layers
from sslkit.evaluation.fingerprint import fingerprint
from sslkit.evaluation.processes import largest, rank, together
from sslkit.views import View

logger = logging.getLogger("sslkit")


def cached_features(
    folder: str | Path | None,
    backbone: Backbone,
    dataset: Dataset,
    view: View,
    *,
    layers: Sequence[str] | None = None,
    about: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    distributed: bool = False,
    **options: Any,
) -> dict[str, Features]:
    """The features of a data set, from disk if they are there, else extracted and kept.

    A file is named after the :func:`fingerprint` of weights, data and view, and written as
    batches come, under another name until it is whole. Features are memory maps: what is
    changed in them stays in memory. What has no fingerprint is extracted, and a line says why.

    Args:
        folder: where the files are, on a disk that all processes see; None to keep nothing.
        layers: names out of ``backbone.layers``, as in :func:`extract_layers`; None for the
            features themselves.
        about: what else the JSON beside the files says of them, in plain data.
        distributed, options: as in :func:`extract`.

    Returns:
        The features of each layer by its name; those of the backbone under "".

    Raises:
        ValueError: a file that is cut short or of another kind, or as :func:`extract`.
        OSError: a disk without room for the features: nothing of them stays there.

    >>> import tempfile
    >>> from sslkit.backbones import ResNet9
    >>> from sslkit.data import ArrayDataset
    >>> from sslkit.views import EvaluationView
    >>> data = ArrayDataset(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.arange(5))
    >>> folder, net = tempfile.TemporaryDirectory(), ResNet9(4)
    >>> found, again = (cached_features(folder.name, net, data, EvaluationView(8)) for _ in "12")
    >>> found[""].features.shape, torch.equal(found[""].features, again[""].features)
    (torch.Size([5, 32]), True)
    >>> folder.cleanup()
    """
    options |= {"device": device, "distributed": distributed}
    try:
        files = _files(folder, backbone, dataset, view, layers, device)
    except ValueError as error:
        logger.warning("features are not cached: %s", error)
        files = None
    if files is None:
        if layers is None:
            return {"": extract(backbone, dataset, view, **options)}
        return extract_layers(backbone, dataset, view, layers, **options)
    network = backbone if layers is None else PooledLayers(backbone, layers)
    card = {"backbone": describe(backbone), **(about or {})}
    _ensure(files, network, dataset, view, layers or ("",), card, options)
    with together(device, distributed):
        return by_layer(*files.whole())


def features_on_disk(
    folder: str | Path | None,
    backbone: Backbone,
    dataset: Dataset,
    view: View,
    *,
    layers: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Features] | None:
    """What :func:`cached_features` would return without an extraction; else None.

    Raises:
        ValueError: a file that is cut short or of another kind.
    """
    try:
        files = _files(folder, backbone, dataset, view, layers, device)
    except ValueError:  # no fingerprint: never kept
        return None
    found = files and files.read()
    return by_layer(*found) if found else None


def _files(
    folder: str | Path | None,
    backbone: Backbone,
    dataset: Dataset,
    view: View,
    layers: Sequence[str] | None,
    device: torch.device | str,
) -> FeatureFiles | None:
    """Where features are kept; ValueError for what has no fingerprint."""
    if folder is None:
        return None
    key = fingerprint(backbone, dataset, view, layers, device=device)
    return FeatureFiles(Path(folder).expanduser(), key)


def _ensure(
    files: FeatureFiles,
    network: nn.Module,
    dataset: Dataset,
    view: View,
    names: Sequence[str],
    card: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Extract what is not on disk yet; the first process has the lock, the files and the say."""
    device, distributed = options["device"], options["distributed"]
    leads = not distributed or rank() == 0
    with ExitStack() as held:
        missing = False
        with together(device, distributed):
            if leads and files.read() is None:
                held.enter_context(files.locked())
                missing = files.read() is None  # or another process was faster
        if distributed:
            missing = bool(largest(int(missing), device=device)[0])
        if not missing:
            return
        with together(device, distributed):
            if leads:
                held.callback(files.discard)
                first = extract(network, Subset(dataset, [0]), view, device=device, workers=0)
                widths = getattr(network, "widths", [first.features.shape[1]])
                files.create(len(dataset), first, dict(zip(names, widths, strict=True)), card)
        with together(device, distributed):
            parts = files.parts()
        extract(network, dataset, view, into=parts, **options)
        with together(device, distributed):
            if leads:
                files.finish()
