"""Adapters that were found unfit a short while ago, so that not each request for one downloads it again."""

from collections import OrderedDict
from collections.abc import Callable

from tokenyard.core.adapters import AdapterRef
from tokenyard_deployments.serving.adapters.files import AdapterRejected

REMEMBERED_S = 60.0
"""Short, because an operator may have repaired what was missing."""
MAX_REMEMBERED = 1024


class RejectedAdapters:
    """By name and content: another content of the name may be right."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def check(self, adapter: AdapterRef) -> None:
        """Raise `AdapterRejected` where `adapter` was rejected lately."""
        until, message = self._known.get((adapter.name, adapter.digest), (0.0, ""))
        if self._now() < until:
            raise AdapterRejected(message)

    def add(self, adapter: AdapterRef, error: AdapterRejected) -> None:
        key = (adapter.name, adapter.digest)
        self._known[key] = (self._now() + REMEMBERED_S, error.message)
        self._known.move_to_end(key)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
