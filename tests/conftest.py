import logging
import random
import sys

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """What a test draws depends on no other test, in whatever order and process they come."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is what is seeded
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def logger_as_it_was():
    """The command line sets up the logger of its process, which here is that of every test."""
    logger = logging.getLogger("sslkit")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def few_test_images(monkeypatch):
    """The embedded set with a test split that is scored in a second."""
    import sslkit.data.shapes  # noqa: F401 - the name is the function's in the package

    monkeypatch.setitem(sys.modules["sslkit.data.shapes"].COUNTS, "test", 500)
