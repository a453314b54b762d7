"""No sentinel is forgotten, however many look for the primary at the same time."""

import asyncio
from typing import Any

from redis.exceptions import ConnectionError as Cut

from tokenyard.metering.connection import OrderedSentinel


class Watcher:
    """A sentinel that is away for those who come first."""

    def __init__(self, name: str, away: int) -> None:
        self.name = name
        self._away = away

    async def sentinel_masters(self) -> dict[str, Any]:
        await asyncio.sleep(0.001)
        if self._away:
            self._away -= 1
            raise Cut(self.name)
        primary = {"ip": "127.0.0.1", "port": 1, "num-other-sentinels": 2, "is_master": True}
        return {"primary": {**primary, "is_sdown": False, "is_odown": False}}


async def test_all_sentinels_stay_known() -> None:
    sentinel: Any = OrderedSentinel([])
    sentinel.sentinels = [Watcher("one", away=99), Watcher("two", away=0), Watcher("three", away=0)]
    known = set(sentinel.sentinels)
    found = await asyncio.gather(*(sentinel.discover_master("primary") for _ in range(12)))
    assert set(found) == {("127.0.0.1", 1)}
    assert len(sentinel.sentinels) == 3
    assert set(sentinel.sentinels) == known
