"""The bounded first-come queue: order, bounds, and slots that always come back."""

import asyncio

import pytest

from tokenyard.core.errors import Unavailable
from tokenyard_deployments.serving.front.slots import Slots


class Holder:
    """Holds slots until told to let go."""

    def __init__(self, slots: Slots, count: int = 1) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._run(slots, count))

    async def _run(self, slots: Slots, count: int) -> None:
        async with slots.hold(count):
            self.entered.set()
            await self.leave.wait()

    async def end(self) -> None:
        self.leave.set()
        await self.task


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_slots_are_given_in_order_of_arrival() -> None:
    slots = Slots(1, max_waiting=8, max_wait_s=10)
    holders = [Holder(slots) for _ in range(4)]
    for number, holder in enumerate(holders):
        await settle()
        assert [other.entered.is_set() for other in holders] == [True] * (number + 1) + [False] * (3 - number)
        await holder.end()
    assert (slots.running, slots.waiting) == (0, 0)


async def test_a_full_line_refuses_and_says_when_to_come_back() -> None:
    slots = Slots(1, max_waiting=2, max_wait_s=10)
    holders = [Holder(slots) for _ in range(3)]
    await settle()
    with pytest.raises(Unavailable) as refused:
        async with slots.hold():
            pass
    assert int(refused.value.headers["retry-after"]) >= 1
    for holder in holders:
        await holder.end()


async def test_retry_after_follows_the_pace() -> None:
    now = [0.0]
    slots = Slots(2, max_waiting=8, max_wait_s=10, now=lambda: now[0])
    for _ in range(60):
        async with slots.hold():
            now[0] += 30.0
    assert slots.retry_after_s == pytest.approx(15.0, rel=0.01)


async def test_nobody_waits_longer_than_said() -> None:
    slots = Slots(1, max_waiting=2, max_wait_s=0.01)
    holder = Holder(slots)
    await settle()
    with pytest.raises(Unavailable, match="in time"):
        async with slots.hold():
            pass
    assert slots.waiting == 0
    await holder.end()


async def test_a_wide_request_waits_for_all_its_slots_and_is_not_overtaken() -> None:
    slots = Slots(4, max_waiting=8, max_wait_s=10)
    first, wide, late = Holder(slots, 2), Holder(slots, 9), Holder(slots, 1)
    await settle()
    assert first.entered.is_set()
    assert not wide.entered.is_set()
    assert not late.entered.is_set()
    await first.end()
    await settle()
    assert wide.entered.is_set()
    assert slots.running == 4
    await wide.end()
    await late.end()
    assert slots.running == 0


async def test_leaving_the_line_lets_the_next_ones_through() -> None:
    slots = Slots(2, max_waiting=8, max_wait_s=10)
    first, wide, late = Holder(slots, 1), Holder(slots, 2), Holder(slots, 1)
    await settle()
    wide.task.cancel()
    await settle()
    assert late.entered.is_set()
    await first.end()
    await late.end()
    assert (slots.running, slots.waiting) == (0, 0)


async def test_slots_given_in_the_moment_of_cancellation_come_back() -> None:
    slots = Slots(1, max_waiting=8, max_wait_s=10)
    first, second = Holder(slots), Holder(slots)
    await settle()
    first.leave.set()
    await asyncio.sleep(0)  # `first` leaves and calls `second`, which has not run yet
    second.task.cancel()
    await settle()
    assert (slots.running, slots.waiting) == (0, 0)
    async with asyncio.timeout(1):
        await slots.empty()


async def test_an_error_inside_frees_the_slot() -> None:
    slots = Slots(1, max_waiting=0, max_wait_s=1)
    with pytest.raises(ZeroDivisionError):
        async with slots.hold():
            raise ZeroDivisionError
    assert slots.running == 0
