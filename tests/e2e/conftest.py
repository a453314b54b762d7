"""One running platform for all end-to-end tests, with short leases."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers.whole_stack import Stack, private_environment, start, stop


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="tokenyard-e2e-", ignore_cleanup_errors=True) as folder:
        running = start(private_environment(Path(folder)))
        yield running
        if running.process.poll() is None:
            stop(running)
