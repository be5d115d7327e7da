import hashlib

import numpy as np
import pytest
import torch

from sslkit.data.shapes import CLASSES, shapes
from sslkit.evaluation import Features, knn


@pytest.mark.parametrize(
    ("split", "digest"), [("train", "da46512c324d3283"), ("test", "0c120e19471217f0")]
)
def test_the_same_bytes_everywhere(split, digest):
    images, _ = shapes(split, 10)
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == digest


def test_a_smaller_n_is_a_prefix():
    images, labels = shapes("train", 1300)
    for n in (1, 9, 650):
        fewer, named = shapes("train", n)
        assert np.array_equal(fewer, images[:n])
        assert np.array_equal(named, labels[:n])


def test_types_and_balance():
    images, labels = shapes("test", 200)
    assert (images.shape, images.dtype, labels.dtype) == ((200, 3, 32, 32), np.uint8, np.int64)
    assert np.bincount(labels).tolist() == [20] * 10
    assert len(set(CLASSES)) == 10
    assert len({tuple(labels[i : i + 10]) for i in range(0, 200, 10)}) > 15  # shuffled


def test_every_image_differs_and_splits_and_seeds_share_none():
    sets = [shapes("train", 300), shapes("test", 300), shapes("train", 300, seed=1)]
    every = {image.tobytes() for images, _ in sets for image in images}
    assert len(every) == 900


def test_pixels_do_not_name_the_class():
    train, test = (
        Features(torch.from_numpy(x).flatten(1).float(), torch.from_numpy(y))
        for x, y in (shapes("train", 5000), shapes("test", 1000))
    )
    assert knn(train, test)["accuracy"] <= 40


@pytest.mark.parametrize(
    ("split", "n", "seed", "message"),
    [
        ("val", 1, 0, "'val' is none of 'train', 'test'"),
        ("train", 0, 0, "n 0 is not an integer of at least 1"),
        ("train", 1.5, 0, "n 1.5"),
        ("train", True, 0, "n True"),
        ("train", 1, -1, "seed -1 is not an integer of at least 0"),
    ],
)
def test_bad_input(split, n, seed, message):
    with pytest.raises(ValueError, match=message):
        shapes(split, n, seed=seed)
