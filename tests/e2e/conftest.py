"""One running platform for all end-to-end tests, with short leases, and what several of them look at."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.servers.whole_stack import Stack, private_environment, start, stop


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="tokenyard-e2e-", ignore_cleanup_errors=True) as folder:
        running = start(private_environment(Path(folder)))
        yield running
        if running.process.poll() is None:
            stop(running)


@dataclass(frozen=True)
class FinishedTour:
    """A finished `tokenyard quickstart`: its tenant has usage, a fine-tuned model and an invoice."""

    output: str
    job: dict[str, Any]


@pytest.fixture(scope="session")
def tour(stack: Stack) -> FinishedTour:
    finished = stack.command("quickstart", timeout_s=600)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = re.search(r"^organization (quickstart-\S+)", finished.stdout, re.MULTILINE)
    assert found, finished.stdout
    (job,) = [job for job in stack.admin("GET", "/admin/jobs")["data"] if job["organization_slug"] == found.group(1)]
    return FinishedTour(finished.stdout, job)
