"""The connection to Redis or Valkey."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

COMMAND_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 1.0
MAX_CONNECTIONS = 64


def connect_redis(url: str, *, command_timeout_s: float = COMMAND_TIMEOUT_S) -> "Redis":
    """Return a client that answers in bytes. A lost connection is an error at once: callers decide what it means."""
    return Redis.from_url(
        url,
        socket_timeout=command_timeout_s,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        max_connections=MAX_CONNECTIONS,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 1),
    )
