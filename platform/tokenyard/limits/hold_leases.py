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
        """Renew every open hold once and give back the doubtful ones; what Redis lost it takes again."""
        try:
            await self._give_back_doubtful()
            by_tag: defaultdict[str, list[Hold]] = defaultdict(list)
            for hold in self._open.values():
                by_tag[bucket_tag(bucket_of(hold.organization))].append(hold)
            for tag, holds in by_tag.items():
                for at in range(0, len(holds), BATCH):
                    await self._renew_batch(tag, holds[at : at + BATCH])
        except RedisError as error:
            _LOG.warning("%d holds could not be renewed: %s", len(self._open), error)

    async def _renew_batch(self, tag: str, holds: Sequence[Hold]) -> None:
        still_open = [hold for hold in holds if hold.key in self._open]
        records: list[Argument] = [part for hold in still_open for part in hold.record()]
        states: list[int] = await self._scripts.run(ScriptName.RENEW, tag, ["", self._lease_ms, *records])
        for hold, state in zip(still_open, states, strict=True):
            if state == _SETTLED:
                self.drop(hold.key)

    async def _give_back_doubtful(self) -> None:
        doubtful = list(self._doubtful.values())
        self._doubtful.clear()
        replies = await asyncio.gather(*(self._release(hold) for hold in doubtful), return_exceptions=True)
        failed = [(hold, reply) for hold, reply in zip(doubtful, replies, strict=True) if reply is not None]
        for hold, _ in failed:
            self.doubt(hold)
        for _, error in failed[:1]:
            raise error

    async def _release(self, hold: Hold) -> None:
        await self._scripts.run(ScriptName.RELEASE, bucket_tag(bucket_of(hold.organization)), ["", hold.key])
