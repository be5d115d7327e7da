"""What every protocol asks of its features and labels."""

import torch
from torch import Tensor


def check_features(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    width: int | None = None,
    cosine: bool = False,
) -> None:
    """Raise ValueError unless features are finite numbers (N, D), with a label a row.

    Args:
        features: floating-point (N, D). labels: (N,) or (N, C).
        width: the D that is needed. cosine: whether each row must have a direction.

    >>> check_features(torch.tensor([[1.0], [float("nan")]]))
    Traceback (most recent call last):
    ...
    ValueError: 1 of 2 features hold NaN or infinity, the first is row 1
    """
    if features.ndim != 2 or not features.is_floating_point() or not features.numel():
        kind = str(features.dtype).removeprefix("torch.")
        raise ValueError(f"features must be floats (N, D), not {kind} {tuple(features.shape)}")
    if width is not None and features.shape[1] != width:
        raise ValueError(f"features must have {width} dimensions, not {features.shape[1]}")
    if labels is not None and (len(labels) != len(features) or labels.ndim not in (1, 2)):
        raise ValueError(
            f"there must be a label a row, (N,) or (N, C), not {tuple(labels.shape)} for "
            f"{len(features)} rows"
        )
    faults = {"hold NaN or infinity": ~features.isfinite().all(1)}
    if cosine:
        faults["are all zeros, which have no direction"] = (features == 0).all(1)
    for what, bad in faults.items():
        if bad.any():
            first = int(bad.nonzero()[0])
            raise ValueError(
                f"{int(bad.sum())} of {len(features)} features {what}, the first is row {first}"
            )


def check_classes(labels: Tensor, fitted: Tensor | int | None = None) -> int:
    """The number of classes; ValueError unless each label is one of them.

    Args:
        labels: int64 (N,), from 0 on; or (N, C) of 1, 0 and -1 (left out).
        fitted: the labels that are trained on, or the number of their classes; None if these
            are they: then there must be two classes, and a row of each up to the highest.

    >>> check_classes(torch.tensor([0, 2]), torch.tensor([0, 1, 1]))
    Traceback (most recent call last):
    ...
    ValueError: class 2 has no training image, but 1 of the 2 labels to test with are of it
    """
    if labels.is_floating_point() or labels.dtype == torch.bool or not labels.numel():
        raise ValueError(f"labels must be one integer or more, not {labels.dtype} {len(labels)}")
    if labels.ndim == 2:
        return _check_columns(labels, fitted)
    if (least := int(labels.min())) < 0:
        why = ", which stands for none" if least == -1 else ""
        raise ValueError(f"labels must be at least 0, but some are {least}{why}")
    if isinstance(fitted, Tensor) and fitted.ndim == 2:
        raise ValueError("labels are (N,), but those that are trained on are (N, C)")
    if fitted is None:
        counts = labels.bincount()
        if len(labels.unique()) < 2:
            raise ValueError(f"there must be 2 classes or more, but every label is {least}")
        if (empty := (counts == 0).nonzero()).numel():
            raise ValueError(
                f"class {int(empty[0])} has no training image, one of {len(empty)} of the "
                f"{len(counts)} classes"
            )
        return len(counts)
    known = torch.arange(fitted) if isinstance(fitted, int) else fitted.unique()
    odd = labels[~torch.isin(labels, known.to(labels.device))]
    if odd.numel():
        raise ValueError(
            f"class {int(odd[0])} has no training image, but {len(odd)} of the {len(labels)} "
            "labels to test with are of it"
            if len(odd.unique()) == 1
            else f"{len(odd.unique())} classes of the labels to test with have no training image, "
            f"the first is {int(odd.min())}"
        )
    return len(known)


def metric_of(metric: str | None, labels: Tensor) -> str:
    """The metric, by default the usual one of such labels; ValueError if it is not for them.

    >>> metric_of(None, torch.tensor([0, 1])), metric_of(None, torch.tensor([[0, 1]]))
    ('accuracy', 'map11')
    """
    several = labels.ndim == 2
    if metric is not None and (metric == "map11") != several:
        shape = "(N, C)" if several else "(N,)"
        raise ValueError(
            f"metric {metric!r} is not for labels {shape}: map11 is of labels (N, C), the others "
            "are of labels (N,)"
        )
    return metric or ("map11" if several else "accuracy")


def _check_columns(labels: Tensor, fitted: Tensor | int | None) -> int:
    columns = fitted if isinstance(fitted, int) else None if fitted is None else fitted.shape[-1]
    if columns is not None and columns != labels.shape[1]:
        raise ValueError(f"labels must have {columns} columns, a class each, not {labels.shape[1]}")
    if other := set(labels.unique().tolist()) - {-1, 0, 1}:
        raise ValueError(f"labels (N, C) must be 1, 0 or -1 (left out), not {min(other)}")
    for value, what in ((1, "no image"), (0, "no other image")) if fitted is None else ():
        if (empty := (~(labels == value).any(0)).nonzero()).numel():
            raise ValueError(f"class {int(empty[0])} has {what} to train on")
    return labels.shape[1]
