"""The connection to Redis or Valkey: to one server, to a primary that Sentinel names, or to a cluster.

A URL says which:

- `redis://[user:password@]host:port/db`, and `rediss://` for TLS;
- `redis+sentinel://[user:password@]host:port,host:port/service[/db]`: sentinels, and what they call the primary.
  `?sentinel_username=...&sentinel_password=...` is for the sentinels themselves;
- `redis+cluster://[user:password@]host:port,host:port`: some nodes; the others are learned from them.

`rediss+sentinel://` and `rediss+cluster://` use TLS. redis-py's options may follow the `?`.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec
from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from tokenyard.metering.cluster import ClusterRedis
from tokenyard.metering.round_trips import PackingConnection, RoundTripPool

COMMAND_TIMEOUT_S = 2.0
CONNECT_TIMEOUT_S = 1.0
MAX_CONNECTIONS = 64
_SENTINEL_PORT, _CLUSTER_PORT = 26379, 6379


class RedisRun(msgspec.Struct, frozen=True):
    """One run of Redis, from its start to its end; another primary is another run, in a cluster each shard's."""

    id: str
    uptime_s: int


class PlainConnection(PackingConnection, Connection):
    """To a server whose address is known."""


class TlsConnection(PackingConnection, SSLConnection):
    """To a server whose address is known, by TLS."""


class PrimaryConnection(PackingConnection, SentinelManagedConnection):
    """To the primary that sentinels name.

    One that hung while they named another wakes up as a primary, and takes what it is sent, to forget it when it is
    told some seconds later.
    """

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        reply = await super().read_response(*arguments, **options)
        try:
            self.check_standing()
        except RedisConnectionError:
            await self.disconnect()
            raise
        return reply

    def check_standing(self) -> None:
        if (self.host, self.port) != self.connection_pool.master_address:
            raise RedisConnectionError("the server is no primary any more")


class PrimaryTlsConnection(PrimaryConnection, SentinelManagedSSLConnection):
    """To the primary that sentinels name, by TLS."""


class OrderedSentinel(Sentinel):
    """Asks for the primary one after the other.

    redis-py moves who answered to the front of its list by places that it knew before it asked: two that do so at the
    same time put one sentinel there twice, and lose another for good.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._turn = asyncio.Lock()

    async def discover_master(self, service_name: str) -> Any:
        async with self._turn:
            return await super().discover_master(service_name)


class SentinelPool(RoundTripPool, SentinelConnectionPool):
    """Closes its connections to the sentinels with those to the primary."""

    async def look_for_primary(self) -> None:
        """Ask who is the primary now; where no sentinel answers it stays the one that was named last."""
        with contextlib.suppress(MasterNotFoundError):
            await self.get_master_address()  # type: ignore[no-untyped-call] # redis-py

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


class _Url(NamedTuple):
    """`options` are redis-py's; `path` is split at its slashes."""

    addresses: Sequence[tuple[str, int]]
    path: Sequence[str]
    options: dict[str, Any]
    tls: bool


def connect_redis(url: str, *, command_timeout_s: float = COMMAND_TIMEOUT_S) -> Redis:
    """Return a client that answers in bytes. A lost connection is an error at once: callers decide what it means.

    Raises:
        ValueError: no such URL is known, see above.
    """
    times = {
        "socket_timeout": command_timeout_s,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "health_check_interval": 15,
    }
    kind = url.partition("://")[0].partition("+")[2]
    if kind == "sentinel":
        return _through_sentinel(_read_url(url, _SENTINEL_PORT), times)
    if kind == "cluster":
        return _to_cluster(_read_url(url, _CLUSTER_PORT), times)
    pool = RoundTripPool.from_url(url, **times, **_pool_options())
    pool.connection_class = TlsConnection if url.startswith("rediss://") else PlainConnection
    return Redis.from_pool(pool)


async def current_run(redis: Redis) -> RedisRun:
    """Return the run of Redis that answers now; what was written to an earlier one may be lost.

    In a cluster whatever happens to a shard is a new run, also that it cannot be reached.
    """
    if not isinstance(redis, ClusterRedis):
        if isinstance(redis.connection_pool, SentinelPool):
            await redis.connection_pool.look_for_primary()  # connections to a former one need not have been lost
        return _run_of(await redis.info("server"))
    nodes = await redis.primaries()
    replies = await asyncio.gather(*(redis.info("server", target_nodes=node) for node in nodes), return_exceptions=True)
    for reply in replies:
        if isinstance(reply, BaseException) and not isinstance(reply, (RedisError, OSError)):
            raise reply
    runs = [_run_of(reply) for reply in replies if not isinstance(reply, BaseException)]
    if not runs:
        raise RedisError("no node of the cluster answers")
    away = [f"away {node.name}" for node, reply in zip(nodes, replies, strict=True) if isinstance(reply, BaseException)]
    names = " ".join(sorted([run.id for run in runs] + away))
    return RedisRun(hashlib.sha256(names.encode()).hexdigest()[:40], min(run.uptime_s for run in runs))


async def redis_time_ms(redis: Redis) -> int:
    """Return Redis' clock in unix milliseconds; of a cluster's clocks the one that is furthest behind."""
    if isinstance(redis, ClusterRedis):
        nodes = await redis.primaries()
        times = await asyncio.gather(*(redis.time(target_nodes=node) for node in nodes))
    else:
        times = [await redis.time()]
    return min(int(seconds) * 1000 + int(microseconds) // 1000 for seconds, microseconds in times)


def _run_of(found: Mapping[str, Any]) -> RedisRun:
    return RedisRun(str(found["run_id"]), int(found["uptime_in_seconds"]))


def _through_sentinel(url: _Url, times: Mapping[str, Any]) -> Redis:
    if not url.path:
        raise ValueError("the Redis URL names no Sentinel service: redis+sentinel://host:port/service")
    names = {"sentinel_username": "username", "sentinel_password": "password"}
    own = {theirs: url.options.pop(name) for name, theirs in names.items() if name in url.options}
    sentinel_options = {**times, **own, "ssl": url.tls, "retry": Retry(NoBackoff(), 1)}
    new_pool: Any = SentinelPool  # redis-py gives it no types
    sentinel = OrderedSentinel(list(url.addresses), sentinel_kwargs=sentinel_options)
    connection = PrimaryTlsConnection if url.tls else PrimaryConnection
    options = {**url.options, **times, **_pool_options(), "connection_class": connection}
    return Redis.from_pool(new_pool(url.path[0], sentinel, **options))


def _to_cluster(url: _Url, times: Mapping[str, Any]) -> Redis:
    def client(host: str, port: int) -> Redis:
        connection = {"connection_class": TlsConnection if url.tls else PlainConnection}
        options = {**url.options, **connection, **times, **_pool_options()}
        return Redis.from_pool(RoundTripPool(host=host, port=port, **options))

    options = {name: value for name, value in url.options.items() if name != "connection_class"}
    cluster = ClusterRedis(
        startup_nodes=[ClusterNode(host, port) for host, port in url.addresses],
        require_full_coverage=False,
        ssl=url.tls,
        max_connections=MAX_CONNECTIONS,
        **times,
        **options,
    )
    return cast(Redis, cluster.reach_nodes_by(client))  # it has the same commands


def _pool_options() -> dict[str, Any]:
    return {"max_connections": MAX_CONNECTIONS, "retry": Retry(NoBackoff(), 1)}


def _read_url(url: str, default_port: int) -> _Url:
    scheme, _, rest = url.partition("://")
    base = scheme.partition("+")[0]
    parts = urlsplit(f"{base}://{rest}")
    credentials, at, hosts = parts.netloc.rpartition("@")
    addresses = [_address(text, default_port) for text in hosts.split(",")]
    path = [part for part in parts.path.split("/") if part]
    # redis-py reads user, password and options of what is left as if it were one server's.
    database = f"/{path[1]}" if path[1:] else ""
    single = urlunsplit((base, f"{credentials}{at}one", database, parts.query, ""))
    options: dict[str, Any] = {**parse_url(single)}
    del options["host"]
    return _Url(addresses, path, options, tls=base == "rediss")


def _address(text: str, default_port: int) -> tuple[str, int]:
    found = urlsplit(f"//{text}")
    if not found.hostname:
        raise ValueError("the Redis URL lists a host without a name")
    return found.hostname, found.port or default_port
