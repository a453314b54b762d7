"""What the path hands over of one request with an idempotency key."""

from typing import NamedTuple

from tokenyard.gateway.path.client import ClientConnection
from tokenyard.gateway.path.in_flight import Place
from tokenyard.gateway.path.telemetry import RequestTelemetry


class KeyedExchange(NamedTuple):
    """Its client, where its bytes count, and what it tells of itself."""

    client: ClientConnection
    place: Place
    telemetry: RequestTelemetry
