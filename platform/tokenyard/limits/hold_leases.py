"""The holds that this process has open, renewed until they are settled."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence

from redis.exceptions import RedisError

from tokenyard.core.redis_keys import bucket_of, bucket_tag
from tokenyard.limits.holds import Hold
from tokenyard.limits.scripts import Argument, ScriptName, Scripts

_LOG = logging.getLogger(__name__)
BATCH = 100
MAX_DOUBTFUL = 1000
_SETTLED = 0


class HoldLeases:
    """Knows the open holds of this process. A process that dies renews no more, so its holds expire."""

    def __init__(self, scripts: Scripts, *, lease_ms: int) -> None:
        self._scripts = scripts
        self._lease_ms = lease_ms
        self._open: dict[str, Hold] = {}
        self._doubtful: dict[str, Hold] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._open

    def add(self, hold: Hold) -> None:
        """Renew `hold` from now on."""
        self._doubtful.pop(hold.key, None)
        self._open[hold.key] = hold

    def drop(self, key: str) -> Hold | None:
        """Renew the hold no more, because its request is being settled; return it where it was open."""
        return self._open.pop(key, None)

    def doubt(self, hold: Hold) -> None:
        """Give `hold` back soon: nobody waits for it any more, and Redis may or may not have taken it.

        Beyond a bound the oldest is forgotten here; its lease ends it.
        """
        if hold.key in self._open:
            return
        self._doubtful[hold.key] = hold
        if len(self._doubtful) > MAX_DOUBTFUL:
            del self._doubtful[next(iter(self._doubtful))]

    async def renew(self) -> None:
        """Renew every open hold once and give back the doubtful ones; what Redis lost it takes again.

        Each bucket by itself: one whose server is away keeps no other from being renewed.
        """
        by_tag: defaultdict[str, list[Hold]] = defaultdict(list)
        for hold in self._open.values():
            by_tag[_tag(hold)].append(hold)
        doubtful = list(self._doubtful.values())
        self._doubtful.clear()
        errors = await asyncio.gather(
            *(self._give_back(hold) for hold in doubtful), *(self._renew_bucket(*bucket) for bucket in by_tag.items())
        )
        for error in [error for error in errors if error is not None][:1]:
            _LOG.warning("not all of %d holds could be renewed: %s", len(self._open), error)

    async def _renew_bucket(self, tag: str, holds: Sequence[Hold]) -> RedisError | None:
        try:
            for at in range(0, len(holds), BATCH):
                await self._renew_batch(tag, holds[at : at + BATCH])
        except RedisError as error:
            return error
        return None

    async def _renew_batch(self, tag: str, holds: Sequence[Hold]) -> None:
        still_open = [hold for hold in holds if hold.key in self._open]
        records: list[Argument] = [part for hold in still_open for part in (hold.key, hold.value())]
        states: list[int] = await self._scripts.run(ScriptName.RENEW, tag, ["", self._lease_ms, *records])
        for hold, state in zip(still_open, states, strict=True):
            if state == _SETTLED:
                self.drop(hold.key)

    async def _give_back(self, hold: Hold) -> RedisError | None:
        try:
            await self._scripts.run(ScriptName.RELEASE, _tag(hold), [hold.key])
        except RedisError as error:
            self.doubt(hold)
            return error
        return None


def _tag(hold: Hold) -> str:
    return bucket_tag(bucket_of(hold.organization))
