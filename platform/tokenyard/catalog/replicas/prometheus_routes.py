"""Tells Prometheus where the engines' own metrics are, in the format of its HTTP service discovery.

Format: https://prometheus.io/docs/prometheus/latest/http_sd/
"""

from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import BaseModel

from tokenyard.catalog.replicas.registry import ReplicaRegistry
from tokenyard.core.replica import Replica


class PrometheusTarget(BaseModel):
    """One address to scrape, with the labels of what is scraped there."""

    targets: list[str]
    labels: dict[str, str]

    @classmethod
    def of(cls, replica: Replica) -> "PrometheusTarget":
        url = urlsplit(replica.url)
        labels = {"__metrics_path__": f"{url.path}/metrics", "replica": replica.name, "model": replica.model}
        return cls(targets=[url.netloc], labels=labels)


def prometheus_router(registry: ReplicaRegistry) -> APIRouter:
    """Return `GET /prometheus/replicas`. The scrape itself needs the replicas' bearer."""
    routes = APIRouter()

    @routes.get("/prometheus/replicas")
    async def replicas() -> list[PrometheusTarget]:
        listed = await registry.read()
        return [] if listed is None else [PrometheusTarget.of(replica) for replica in listed.replicas]

    return routes
