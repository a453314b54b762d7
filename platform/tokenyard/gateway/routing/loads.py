"""How much each replica has to do: what this gateway has under way there, and what the others have, as last heard."""

import time
from collections.abc import Callable, Set

from tokenyard.core.replica import Replica, ReplicaLoad

TOKENS_PER_SEQUENCE = 256
"""So many prompt tokens to be computed weigh as much as a sequence that runs."""
LISTED_AFTER_S = 1.0
"""What a replica says itself counts for so long before what the list says of it, which is about as old."""
FORGOTTEN_AFTER_S = 60.0


class ReplicaWork:
    """One replica's work as this gateway knows it.

    What it says of itself includes what this gateway has there. As that is known exactly at any moment, only the rest
    is kept of what it said.
    """

    __slots__ = (
        *("_listed", "_others_sequences", "_others_tokens", "_slots", "_told_at", "_used_at"),
        *("adapters", "sequences", "tokens"),
    )

    def __init__(self) -> None:
        self._told_at = self._used_at = float("-inf")
        self._listed: Replica | None = None
        self._slots = 1
        self._others_sequences = 0
        self._others_tokens = 0
        self.adapters: Set[str] = frozenset()
        """Those it holds, as listed."""
        self.sequences = 0
        """This gateway's own under way."""
        self.tokens = 0
        """This gateway's own, of prompts of which no answer has begun."""

    @property
    def pressure(self) -> float:
        """All of its work, in parts of what it runs at once: at 1 somebody may wait."""
        waiting = max(0, self._others_tokens + self.tokens)
        return (self._others_sequences + self.sequences + waiting / TOKENS_PER_SEQUENCE) / self._slots

    def is_forgotten(self, now: float) -> bool:
        return not self.sequences and self._used_at + FORGOTTEN_AFTER_S < now

    def told(self, load: ReplicaLoad, now: float) -> None:
        """Take what the replica says of itself."""
        self._told_at = now
        self._take(load)
        # Below 0 where answers that come whole have begun there and not here.
        self._others_tokens = load.waiting_tokens - self.tokens

    def take_listed(self, listed: Replica, now: float) -> None:
        """Take what the list says, once, unless the replica itself said something of late."""
        self._used_at = now
        if listed is self._listed:
            return
        self._listed = listed
        self.adapters = frozenset(listed.adapters)
        if self._told_at + LISTED_AFTER_S < now:
            self._take(ReplicaLoad(listed.running + listed.waiting, listed.slots, listed.waiting_tokens))

    def _take(self, load: ReplicaLoad) -> None:
        self._slots = load.slots or 1
        self._others_sequences = max(0, load.sequences - self.sequences)
        self._others_tokens = max(0, load.waiting_tokens - self.tokens)


class LoadBook:
    """The work of all replicas, by name."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._works: dict[str, ReplicaWork] = {}

    def of(self, replica: Replica) -> ReplicaWork:
        """Return what is known of a replica, with what its list entry says."""
        work = self._works.get(replica.name)
        now = self.now()
        if work is None:
            self._works = {name: one for name, one in self._works.items() if not one.is_forgotten(now)}
            work = self._works[replica.name] = ReplicaWork()
        work.take_listed(replica, now)
        return work
