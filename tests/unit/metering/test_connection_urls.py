"""What a Redis URL means."""

from typing import Any

import pytest
from redis.asyncio import SSLConnection

from tokenyard.metering.cluster import ClusterRedis
from tokenyard.metering.connection import PlainConnection, PrimaryConnection, TlsConnection, connect_redis


async def test_one_server() -> None:
    client = connect_redis("redis://me:my%40word@host:6390/2")
    pool = client.connection_pool
    options = pool.connection_kwargs
    assert (options["host"], options["port"], options["db"]) == ("host", 6390, 2)
    assert (options["username"], options["password"]) == ("me", "my@word")
    assert pool.connection_class is PlainConnection
    assert connect_redis("rediss://host").connection_pool.connection_class is TlsConnection


async def test_sentinels() -> None:
    url = "redis+sentinel://me:word@one,two:7000,[::1]:7001/service/3?sentinel_username=watch&sentinel_password=man"
    pool: Any = connect_redis(url).connection_pool
    options = pool.connection_kwargs
    assert pool.service_name == "service"
    assert pool.connection_class is PrimaryConnection
    assert (options["db"], options["username"], options["password"]) == (3, "me", "word")
    sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in sentinels] == [("one", 26379), ("two", 7000), ("::1", 7001)]
    assert {(one["username"], one["password"]) for one in sentinels} == {("watch", "man")}


async def test_a_cluster() -> None:
    client: Any = connect_redis("redis+cluster://me:word@one,two:7000")
    assert isinstance(client, ClusterRedis)
    assert [(node.host, node.port) for node in client.startup_nodes] == [("one", 6379), ("two", 7000)]
    assert (client.connection_kwargs["username"], client.connection_kwargs["password"]) == ("me", "word")
    secure: Any = connect_redis("rediss+cluster://one")
    assert issubclass(secure.connection_kwargs["connection_class"], SSLConnection)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://host", "names no Sentinel service"),
        ("redis+cluster://one,,two", "without a name"),
        ("redis+proxy://host", "schemes"),
        ("memcached://host", "schemes"),
    ],
)
async def test_an_unknown_url_is_told_so(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        connect_redis(url)
