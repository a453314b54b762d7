"""Tells Prometheus where the engines' own metrics are, in the format of its HTTP service discovery.

Format: https://prometheus.io/docs/prometheus/latest/http_sd/
"""

from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter

from tokenyard.catalog.replicas.registry import ReplicaBoard
from tokenyard.core.replica import Replica

METRICS_PATH_LABEL = "__metrics_path__"


def prometheus_router(board: ReplicaBoard) -> APIRouter:
    """Return `GET /prometheus/replicas`. The scrape itself needs the replicas' bearer."""
    routes = APIRouter()

    @routes.get("/prometheus/replicas")
    async def replicas() -> list[dict[str, Any]]:
        listed = await board.read()
        return [] if listed is None else [_target(replica) for replica in listed.replicas]

    return routes


def _target(replica: Replica) -> dict[str, Any]:
    url = urlsplit(replica.url)
    labels = {METRICS_PATH_LABEL: f"{url.path}/metrics", "replica": replica.name, "model": replica.model}
    return {"targets": [url.netloc], "labels": labels}
