"""Few documents are made at once, and few of one organization."""

import asyncio

import pytest

from support.billing.stand import ACME, GLOBEX
from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard_billing.documents import rendering
from tokenyard_billing.documents.rendering import AT_ONCE, MAX_ASKED, MAX_OF_ONE, RenderingQueue


class Work:
    """Documents that are made until `go`; it counts how many are at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = self.most = 0

    async def __call__(self) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
        finally:
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
    assert work.most == AT_ONCE
    assert await queue.run(ACME, work) == b"made"


async def test_who_asks_for_several_keeps_nobody_else_waiting() -> None:
    queue, slow, work = RenderingQueue(), Work(), Work()
    own = [asyncio.create_task(queue.run(ACME, slow)) for _ in range(MAX_OF_ONE)]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.wait_for(queue.run(GLOBEX, work), 5) == b"made"
    assert slow.most == 1
    slow.go.set()
    assert await asyncio.gather(*own) == [b"made"] * MAX_OF_ONE


async def test_all_together_have_a_bound_and_who_leaves_frees_a_place() -> None:
    queue, work = RenderingQueue(), Work()
    asked = [asyncio.create_task(queue.run(OrganizationId(f"org_{number}"), work)) for number in range(MAX_ASKED)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await queue.run(ACME, work)
    asked[0].cancel()
    await asyncio.gather(asked[0], return_exceptions=True)
    last = asyncio.create_task(queue.run(ACME, work))
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*asked[1:], last) == [b"made"] * MAX_ASKED


async def test_what_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "TIME_LIMIT_S", 0.01)
    queue, work = RenderingQueue(), Work()
    with pytest.raises(Unavailable, match="too long"):
        await queue.run(ACME, work)
    assert work.running == 0


async def test_a_failure_is_told_and_frees_the_place() -> None:
    queue = RenderingQueue()

    async def fail() -> bytes:
        raise ValueError("broken")

    for _ in range(MAX_OF_ONE + 1):
        with pytest.raises(ValueError, match="broken"):
            await queue.run(ACME, fail)
