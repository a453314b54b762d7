"""How fast keys that nobody knows may reach SQL: whoever can count can make up keys with a right checksum."""

from collections.abc import Callable

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.web.client_address import network_of
from tokenyard.web.token_buckets import TokenBucket, TokenBuckets

# A look-up takes more than a millisecond: so many leave the event loop to others. At a start many real ones may wait.
PER_S, BURST = 100, 1000
# It takes dozens of networks to use up what there is for all. Keys that exist cost nothing, so few are enough.
NETWORK_PER_S, NETWORK_BURST = 2, 20
NETWORKS = 10_000


class UnknownKeys:
    """One bound for each network, so that a flood shuts out only its own, and one for all of them together.

    Only keys that turn out not to exist count, and those being looked up: a process that has just started may learn
    many real ones at once.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """Take seconds, monotonic."""
        self._now = now
        self._all = TokenBucket(PER_S, BURST, now())
        self._networks = TokenBuckets(NETWORK_PER_S, NETWORK_BURST, size=NETWORKS, now=now)

    def spend(self, address: str) -> None:
        """Count a key as one that does not exist, before it is looked up.

        Raises:
            RateLimited: too many from this address.
            Unavailable: too many from all together.
        """
        now_s = self._now()
        bucket = self._networks.of(network_of(address))
        if not bucket.has_one(now_s):
            raise RateLimited("Too many API keys that do not exist were sent from your address. Please try again.")
        if not self._all.has_one(now_s):
            raise Unavailable("Too many API keys are being looked up. Please try again.")
        bucket.change(-1)
        self._all.change(-1)

    def refund(self, address: str) -> None:
        """The key does exist, or could not be looked up."""
        self._networks.of(network_of(address)).change(1)
        self._all.change(1)
