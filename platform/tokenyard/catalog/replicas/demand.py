"""Which adapters of a base model are worth a place in memory, the most important first."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokenyard.catalog.operator_store import CatalogOperatorStore
from tokenyard.catalog.ports import ReplicaControl
from tokenyard.catalog.store import Adapter
from tokenyard.core.clock import Clock
from tokenyard.core.replica import AdapterUses, Replica, ReplicaLost

_LOG = logging.getLogger(__name__)
USES_TIMEOUT_S = 2.0
NEW_S = 60.0
"""The maker of an adapter this young is about to try it."""


class WantedAdapter(NamedTuple):
    """`rate` is requests a second over all replicas, of late."""

    adapter: Adapter
    rate: float
    pinned: bool
    new: bool


class AdapterDemand:
    def __init__(self, store: CatalogOperatorStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def of(self, base: str, uses: Iterable[AdapterUses], limit: int) -> list[WantedAdapter]:
        """Return at most `limit`: pinned ones, new ones, those asked for most, and those that went live last."""
        rates = defaultdict[str, float](float)
        pins: dict[str, None] = {}
        for one in uses:
            pins |= dict.fromkeys(one.pinned)
            for name, rate in one.rates.items():
                rates[name] += rate
        hot = sorted(rates, key=lambda name: (-rates[name], name))[:limit]
        newest = await self._store.newest_live(base, limit)
        known = {one.name: one for one in (*await self._store.live_named(base, {*pins, *hot}), *newest)}
        new = [one.name for one in newest if self._is_new(one)]
        order = dict.fromkeys((*pins, *new, *hot, *known))
        wanted = [
            WantedAdapter(known[name], rates.get(name, 0.0), name in pins, name in new)
            for name in order
            if name in known
        ]
        return wanted[:limit]

    def _is_new(self, adapter: Adapter) -> bool:
        return adapter.live_ms is not None and self._clock.now_ms() - adapter.live_ms < NEW_S * 1000


async def uses_of(replicas: Sequence[Replica], control: ReplicaControl) -> list[tuple[Replica, AdapterUses | None]]:
    """Return each replica with what it tells of its adapters; None where it does not answer in time."""

    async def ask(replica: Replica) -> AdapterUses | None:
        try:
            async with asyncio.timeout(USES_TIMEOUT_S):
                return await control.uses(replica)
        except (ReplicaLost, TimeoutError) as error:
            _LOG.info("replica %s does not answer: %s", replica.name, error)
            return None

    return list(zip(replicas, await asyncio.gather(*map(ask, replicas)), strict=True))
