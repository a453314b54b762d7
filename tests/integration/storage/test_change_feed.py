"""The change feed: who follows it is told of each change of its kind, and when it cannot know what it missed."""

import asyncio

from redis.asyncio import Redis

from support.gateway_stack import until
from tokenyard.storage.change_feed import STREAM, ChangeFeed, publish


class Told:
    """A listener; a test may break it or hold it up."""

    def __init__(self) -> None:
        self.subjects: list[str | None] = []
        self.failing = False
        self.tries = 0
        self.open = asyncio.Event()
        self.open.set()

    async def listen(self, subject: str | None) -> None:
        self.tries += 1
        await self.open.wait()
        if self.failing:
            raise ConnectionRefusedError("the database is away")
        self.subjects.append(subject)

    async def has(self, *subjects: str | None) -> None:
        """Wait until it was told exactly these."""
        await until(lambda: len(self.subjects) >= len(subjects))
        assert self.subjects == [*subjects]


async def test_each_listener_is_told_its_own_kind_in_order_from_now_on(redis: Redis) -> None:
    await publish(redis, "fruit", "before")
    fruit, tools, second = Told(), Told(), Told()
    async with (
        ChangeFeed(redis, {"fruit": fruit.listen, "tools": tools.listen}),
        ChangeFeed(redis, {"fruit": second.listen}),
    ):
        for told in (fruit, tools, second):
            await told.has(None)
        for kind, subject in (("fruit", "apple"), ("other", "x"), ("tools", "saw"), ("fruit", "pear")):
            await publish(redis, kind, subject)
        await fruit.has(None, "apple", "pear")
        await second.has(None, "apple", "pear")
        await tools.has(None, "saw")


async def test_nothing_is_told_after_the_end(redis: Redis) -> None:
    told, witness = Told(), Told()
    async with ChangeFeed(redis, {"fruit": witness.listen}):
        async with ChangeFeed(redis, {"fruit": told.listen}):
            await told.has(None)
            await witness.has(None)
        await publish(redis, "fruit", "apple")
        await witness.has(None, "apple")
        assert told.subjects == [None]


async def test_a_listener_that_failed_is_told_that_anything_may_have_changed_until_it_takes_that(redis: Redis) -> None:
    weak, strong = Told(), Told()
    async with ChangeFeed(redis, {"fruit": weak.listen, "tools": strong.listen}):
        await weak.has(None)
        await strong.has(None)
        weak.failing = True
        await publish(redis, "fruit", "apple")
        await publish(redis, "tools", "saw")
        await strong.has(None, "saw")
        await until(lambda: weak.tries >= 4)
        weak.failing = False
        await weak.has(None, None)
        await publish(redis, "fruit", "pear")
        await weak.has(None, None, "pear")
        assert strong.subjects == [None, "saw"]


async def test_a_slow_listener_holds_up_no_other(redis: Redis) -> None:
    slow, quick = Told(), Told()
    async with ChangeFeed(redis, {"fruit": slow.listen, "tools": quick.listen}):
        await slow.has(None)
        await quick.has(None)
        slow.open.clear()
        await publish(redis, "fruit", "apple")
        await until(lambda: slow.tries == 2)
        await publish(redis, "tools", "saw")
        await quick.has(None, "saw")
        slow.open.set()
        await slow.has(None, "apple")


async def test_a_stream_that_lost_its_end_makes_anything_possible(redis: Redis) -> None:
    """As after a failover to a Redis whose copy or clock is behind: what it adds stands before what was read."""
    told = Told()
    async with ChangeFeed(redis, {"fruit": told.listen}):
        await told.has(None)
        await publish(redis, "fruit", "apple")
        await told.has(None, "apple")
        async with redis.pipeline(transaction=True) as pipe:
            pipe.delete(STREAM)
            pipe.xadd(STREAM, {"kind": "fruit", "subject": "pear"}, id="1-1")
            await pipe.execute()
        await told.has(None, "apple", None)
        await redis.xadd(STREAM, {"kind": "fruit", "subject": "plum"}, id="1-2")
        await told.has(None, "apple", None, "plum")
