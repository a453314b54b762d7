"""Events that wait for a rate card. They stay pending in their streams, which bound them, and hold up no other.

Only a new card can end such a wait, so it is new cards that are looked for, and not the events again and again.
"""

import time
from collections.abc import Callable, Collection, Set

from tokenyard.storage.database import Database
from tokenyard_billing.pricing.price_book import read_new_cards
from tokenyard_billing.pricing.prices import PriceList

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class PriceWaits:
    """The buckets of a consumer in which events wait."""

    def __init__(self, database: Database, prices: PriceList, *, now: Callable[[], float] = time.monotonic) -> None:
        """Take `now` in seconds."""
        self._database = database
        self._prices = prices
        self._cards_known: dict[int, int] = {}  # when the bucket's events were last taken
        self._now = now
        self._pause_s = FIRST_PAUSE_S
        self._look_at = 0.0

    @property
    def buckets(self) -> Set[int]:
        return self._cards_known.keys()

    def add(self, bucket: int, cards_known: int) -> None:
        if not self._cards_known:
            self._pause_s = FIRST_PAUSE_S
            self._look_at = self._now() + FIRST_PAUSE_S
        self._cards_known.setdefault(bucket, cards_known)

    def discard(self, bucket: int) -> None:
        self._cards_known.pop(bucket, None)

    def keep(self, held: Collection[int]) -> None:
        """Forget the buckets that others hold now."""
        for bucket in self._cards_known.keys() - held:
            self.discard(bucket)

    async def over(self) -> set[int]:
        """Return the buckets to take again; SQL is asked for new cards after a pause that grows."""
        if self._cards_known and self._now() >= self._look_at:
            async with self._database.reading() as session:
                await read_new_cards(session, self._prices)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._look_at = self._now() + self._pause_s
        return {bucket for bucket, known in self._cards_known.items() if known < len(self._prices.cards)}
