"""Who is tried out next."""

import asyncio

import pytest

from tokenyard_deployments.serving.engine.grammars.round_robin import RoundRobin, TooManyWaiting


async def _queued(robin: RoundRobin, order: list[str], organization: str, name: str) -> asyncio.Task[None]:
    async def work() -> None:
        async with robin.one(organization):
            order.append(name)
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    return task


async def test_organizations_in_rotation() -> None:
    robin, order = RoundRobin(8), list[str]()
    async with robin.one("noisy"):
        tasks = [await _queued(robin, order, "noisy", f"noisy {at}") for at in range(3)]
        tasks += [await _queued(robin, order, "quiet", f"quiet {at}") for at in range(2)]
    await asyncio.gather(*tasks)
    assert order == ["noisy 0", "quiet 0", "noisy 1", "quiet 1", "noisy 2"]


async def test_one_at_a_time() -> None:
    robin, order = RoundRobin(8), list[str]()
    async with robin.one("a"):
        task = await _queued(robin, order, "b", "b")
        await asyncio.sleep(0.01)
        assert order == []
    await task
    assert order == ["b"]


async def test_each_organization_has_its_own_bound() -> None:
    robin, order = RoundRobin(1), list[str]()
    async with robin.one("noisy"):
        tasks = [await _queued(robin, order, "noisy", "noisy")]
        with pytest.raises(TooManyWaiting):
            async with robin.one("noisy"):
                pytest.fail("there was no place to wait")
        tasks.append(await _queued(robin, order, "quiet", "quiet"))
    await asyncio.gather(*tasks)
    assert sorted(order) == ["noisy", "quiet"]


async def test_who_leaves_holds_nobody_up() -> None:
    robin, order = RoundRobin(8), list[str]()
    async with robin.one("a"):
        gone = await _queued(robin, order, "a", "gone")
        stays = await _queued(robin, order, "b", "stays")
        gone.cancel()
    # Its turn comes in the moment in which it leaves.
    stays.cancel()
    last = await _queued(robin, order, "c", "last")
    await asyncio.wait([gone, stays, last], timeout=1)
    assert order == ["last"]


async def test_after_an_error_the_next_one_goes() -> None:
    robin, order = RoundRobin(8), list[str]()
    with pytest.raises(ZeroDivisionError):
        async with robin.one("a"):
            raise ZeroDivisionError
    await (await _queued(robin, order, "a", "next"))
    assert order == ["next"]
