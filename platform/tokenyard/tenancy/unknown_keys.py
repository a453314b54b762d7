"""How fast keys that nobody knows may reach SQL: whoever can count can make up keys with a right checksum."""

from collections import OrderedDict
from collections.abc import Callable

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.web.client_address import network_of

PER_S, BURST = 500, 1000
# It takes hundreds of networks to use up what there is for all. Keys that exist cost nothing, so few are enough.
NETWORK_PER_S, NETWORK_BURST = 2, 100
NETWORKS = 10_000


class _Bucket:
    """Holds up to `burst`, and gets `per_s` back each second."""

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._level, self._at_s = burst, now_s

    def has_one(self, now_s: float) -> bool:
        self._level = min(self._burst, self._level + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._level >= 1

    def change(self, by: int) -> None:
        self._level += by


class UnknownKeys:
    """One bound for each network, so that a flood shuts out only its own, and one for all of them together.

    Only keys that turn out not to exist count, and those being looked up: a process that has just started may learn
    many real ones at once.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """Take seconds, monotonic."""
        self._now = now
        self._all = _Bucket(PER_S, BURST, now())
        self._networks: OrderedDict[str, _Bucket] = OrderedDict()

    def spend(self, address: str) -> None:
        """Count a key as one that does not exist, before it is looked up.

        Raises:
            RateLimited: too many from this address.
            Unavailable: too many from all together.
        """
        now_s = self._now()
        bucket = self._bucket(address, now_s)
        if not bucket.has_one(now_s):
            raise RateLimited("Too many API keys that do not exist were sent from your address. Please try again.")
        if not self._all.has_one(now_s):
            raise Unavailable("Too many API keys are being looked up. Please try again.")
        bucket.change(-1)
        self._all.change(-1)

    def refund(self, address: str) -> None:
        """The key does exist, or could not be looked up."""
        self._bucket(address, self._now()).change(1)
        self._all.change(1)

    def _bucket(self, address: str, now_s: float) -> _Bucket:
        network = network_of(address)
        bucket = self._networks.get(network)
        if bucket is None:
            bucket = self._networks[network] = _Bucket(NETWORK_PER_S, NETWORK_BURST, now_s)
            if len(self._networks) > NETWORKS:
                self._networks.popitem(last=False)
        self._networks.move_to_end(network)
        return bucket
