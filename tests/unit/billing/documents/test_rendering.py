"""Few documents are made at once, and few of one organization."""

import asyncio
import threading

import pytest

from support.billing.stand import ACME, GLOBEX
from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard_billing.documents.rendering import MAX_ASKED, MAX_OF_ONE, THREADS, RenderingQueue


class Work:
    """Documents that are made until `go`; it counts how many are at once."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go.wait(10)
        with self._lock:
            self.running -= 1
        return b"made"


async def test_an_organization_has_a_few_and_the_others_their_own() -> None:
    queue, work = RenderingQueue(), Work()
    own = [asyncio.create_task(queue.run(ACME, work)) for _ in range(MAX_OF_ONE)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await queue.run(ACME, work)
    other = asyncio.create_task(queue.run(GLOBEX, work))
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*own, other) == [b"made"] * (MAX_OF_ONE + 1)
    assert work.most <= THREADS
    assert await queue.run(ACME, work) == b"made"


async def test_all_together_have_a_bound_and_who_leaves_still_counts() -> None:
    queue, work = RenderingQueue(), Work()
    asked = [asyncio.create_task(queue.run(OrganizationId(f"org_{number}"), work)) for number in range(MAX_ASKED)]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await queue.run(ACME, work)
    work.go.set()
    await asyncio.gather(*asked, return_exceptions=True)
    assert await queue.run(ACME, work) == b"made"


async def test_a_failure_is_told_and_frees_the_place() -> None:
    queue = RenderingQueue()

    def fail() -> bytes:
        raise ValueError("broken")

    for _ in range(MAX_OF_ONE + 1):
        with pytest.raises(ValueError, match="broken"):
            await queue.run(ACME, fail)
