"""What a replica says of adapters: how many are in memory, where the others came from, how full the disk is."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenyard_deployments.serving.adapters.disk_cache import DiskCache
from tokenyard_deployments.serving.adapters.files import AdapterFiles
from tokenyard_deployments.serving.adapters.residency import Residency


class ResidencyMetrics(Collector):
    """Read as they are scraped. No adapter and no organization is a label."""

    def __init__(self, residency: Residency, files: AdapterFiles, cache: DiskCache) -> None:
        self._residency = residency
        self._files = files
        self._cache = cache

    def show_in(self, registry: CollectorRegistry) -> None:
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        residency, files, cache = self._residency, self._files, self._cache
        for name, text, value in (
            ("places", "Adapters that fit into memory.", residency.capacity),
            ("resident", "Adapters in memory.", len(residency.names)),
            ("in_use", "Adapters in memory that may not leave it now.", residency.in_use),
            ("pinned", "Adapters that make room for no other.", len(residency.pinned)),
            ("waiting_requests", "Requests that wait for an adapter to be loaded.", residency.waiting),
            ("disk_bytes", "Adapters on the disk of the node, as this replica last saw it.", cache.bytes),
        ):
            yield GaugeMetricFamily(f"tokenyard_adapters_{name}", text, value)
        for name, text, count in (
            ("loads", "Adapters that were loaded into memory.", residency.loads),
            ("load_failures", "Loads that came to nothing.", residency.failures),
            ("evictions", "Adapters that left memory.", residency.evictions),
            ("disk_evictions", "Adapters that left the disk to make room.", cache.evictions),
        ):
            yield CounterMetricFamily(f"tokenyard_adapter_{name}", text, count)
        found = CounterMetricFamily("tokenyard_adapter_lookups", "Where an adapter was found.", labels=["place"])
        for place, count in (("memory", residency.hits), ("disk", files.on_disk), ("store", files.downloaded)):
            found.add_metric([place], count)
        yield found
