"""Divides a bounded thing among those who want it: dynamic thresholds (Choudhury and Hahne, 1998), pure.

It comes in three shares. Two are handed out by a threshold that moves: nobody may hold more than what stays free, so
one alone gets a share, two get two thirds of one each, and somebody new always finds a place. The third share is for
those who hold nothing yet, so that even one large request of theirs finds room beside many small ones of others.
"""

from collections import Counter
from collections.abc import Hashable

_SHARES_HANDED_OUT = 2
_SHARES = 3


class Shares:
    """Who holds how much. An amount over a share counts as a whole share: it must be possible to let it in."""

    def __init__(self, share: int) -> None:
        self._share = max(1, share)
        self._held: Counter[Hashable] = Counter()
        self._total = 0

    @property
    def total(self) -> int:
        return self._total

    def counted(self, amount: int) -> int:
        return min(amount, self._share)

    def lacking(self, holder: Hashable, amount: int) -> int:
        """Return how far `amount` is from being let in, 0 where it may come in now; `gains` says what leads there."""
        wanted, held = self.counted(amount), self._held[holder]
        if not held:
            return max(0, self._total + wanted - _SHARES * self._share)
        return max(0, held + 2 * wanted + self._total - _SHARES_HANDED_OUT * self._share)

    def gains(self, holder: Hashable, amount: int, *, own: bool) -> int:
        """Return how much nearer `holder` comes to be let in when `amount` leaves, its own or another's."""
        return self.counted(amount) * (2 if own and self._held[holder] else 1)

    def over_its_part(self, holder: Hashable, amount: int) -> bool:
        """Tell whether with `amount` the holder would have more than an equal part: then it waits for itself."""
        held = self._held[holder]
        others = len(self._held) - (1 if held else 0)
        return bool(held) and (held + self.counted(amount)) * (others + 2) > _SHARES_HANDED_OUT * self._share

    def take(self, holder: Hashable, amount: int) -> None:
        self._held[holder] += self.counted(amount)
        self._total += self.counted(amount)

    def give_back(self, holder: Hashable, amount: int) -> None:
        self._held[holder] -= self.counted(amount)
        self._total -= self.counted(amount)
        if not self._held[holder]:
            del self._held[holder]
