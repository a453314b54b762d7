"""What is kept of Ray Serve's inside while vLLM starts in a replica."""

import io
import logging
import logging.config
from collections.abc import Iterator
from logging.handlers import MemoryHandler

import pytest
from ray.serve._private.constants import SERVE_LOGGER_NAME

from tokenyard_deployments.serving.engine.ray_inside import keep_serve_log


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What Serve's log has written, by the two handlers that a replica has."""
    text = io.StringIO()
    logger, handler = logging.getLogger(SERVE_LOGGER_NAME), MemoryHandler(100, target=logging.StreamHandler(text))
    logger.addHandler(handler)
    yield text
    logger.removeHandler(handler)


def test_serves_log_survives_another_configuration(written: io.StringIO) -> None:
    with keep_serve_log():
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # as vLLM's engine does
    (handler,) = [one for one in logging.getLogger(SERVE_LOGGER_NAME).handlers if isinstance(one, MemoryHandler)]
    assert handler.target is not None
    logging.getLogger(SERVE_LOGGER_NAME).error("still here")
    assert "still here" in written.getvalue()
    assert handler.buffer == []
