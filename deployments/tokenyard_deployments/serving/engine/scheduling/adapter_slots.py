"""Which adapters a batch holds: as many as the engine has places for, handed out in the order of service."""

from collections.abc import Iterable, Mapping

from tokenyard_deployments.serving.engine.scheduling.service import WeightedService


class AdapterSlots:
    """`places` distinct adapters run at once. One that somebody less served waits for in vain gives its place up."""

    def __init__(self, places: int, service: WeightedService, quantum: float) -> None:
        self._places = places
        self._service = service
        self._quantum = quantum
        # Gets no new sequences, so that its place becomes free.
        self._closing: int | None = None

    def fits(self, adapter: int | None, taken: Iterable[int]) -> bool:
        """Tell whether a sequence over `adapter` may start beside those over the adapters `taken`."""
        if adapter is None:
            return True
        if adapter == self._closing:
            return False
        held = set(taken)
        return adapter in held or len(held) < self._places

    def claim(self, organization: str, adapter: int, holders: Mapping[int, set[str]]) -> int | None:
        """Make room for `adapter`: return one that has to stop at once, or None where one is left to run out.

        `holders` are the organizations that run sequences over each adapter in a place.
        """
        if adapter in holders or len(holders) < self._places:
            self._closing = None
            return None
        if self._closing not in holders:
            self._closing = max(holders, key=lambda one: (self._held_by(holders[one]), -len(holders[one])))
        assert self._closing is not None
        over = self._held_by(holders[self._closing]) - self._service.of(organization)
        return self._closing if over > self._quantum and organization not in holders[self._closing] else None

    def no_claim(self) -> None:
        """Nobody waits for a place: whatever was to run out stays."""
        self._closing = None

    def _held_by(self, organizations: Iterable[str]) -> float:
        return min(self._service.of(one) for one in organizations)
