"""How long each phase of a replica's start took: in its log, and on its `/metrics`."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_LOG = logging.getLogger(__name__)
START_SECONDS = "tokenyard_replica_start_seconds"


class StartPhases(Collector):
    """Begins as it is made. What Ray does before, placing the replica and starting its process, is not in it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = now()
        self.seconds: dict[str, float] = {}

    def ended(self, phase: str, within: Mapping[str, float] | None = None) -> None:
        """Note that `phase` ended, which began as the one before it ended; `within` are phases that were part of it."""
        now = self._now()
        took, self._last = now - self._last, now
        parts = within or {}
        self.seconds |= {phase: took - sum(parts.values()), **parts}

    def log(self) -> None:
        told = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in self.seconds.items())
        _LOG.info("ready after %.1f s: %s", sum(self.seconds.values()), told)

    def show_in(self, registry: CollectorRegistry) -> None:
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(START_SECONDS, "What a phase of the replica's start took.", labels=["phase"])
        for phase, seconds in self.seconds.items():
            family.add_metric([phase], seconds)
        yield family
