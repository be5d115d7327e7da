import logging
import sys

import pytest


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
