import logging

import pytest


@pytest.fixture(autouse=True)
def logger_as_it_was():
    """The command line sets up the logger of its process, which here is that of every test."""
    logger = logging.getLogger("sslkit")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
