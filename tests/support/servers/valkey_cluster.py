"""A real Valkey cluster: primaries that share the slots evenly, each with a replica where a test wants to lose one."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import redis

from support.servers.free_ports import free_ports
from support.servers.valkey import Valkey

SLOTS = 16_384
# A primary that is silent for so long is failed over. Where there is nothing to fail over to, a test that means one
# primary would lose the others, too, whenever the machine stands still for so long.
NODE_TIMEOUT_MS = 1_000
PATIENT_TIMEOUT_MS = 60_000
DEADLINE_S = 30.0


class ValkeyCluster:
    """`primaries` holds the nodes that have slots at first, in the order of the slots."""

    def __init__(self, folder: Path, *, primaries: int = 3, replicas: bool = False) -> None:
        count = primaries * (2 if replicas else 1)
        ports = free_ports(2 * count)
        self.ports, buses = ports[:count], ports[count:]
        timeout_ms = NODE_TIMEOUT_MS if replicas else PATIENT_TIMEOUT_MS
        self.nodes = [
            _node(folder / f"node-{port}", port, bus, timeout_ms) for port, bus in zip(self.ports, buses, strict=True)
        ]
        self.primaries = self.nodes[:primaries]
        self._buses = buses
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self) -> None:
        """Start the nodes, let them meet, and give the slots out."""
        for node in self.nodes:
            node.start()
        edges = [round(SLOTS * at / len(self.primaries)) for at in range(len(self.primaries) + 1)]
        for port, (first, end) in zip(self.ports, pairwise(edges), strict=False):
            ask(port, "CLUSTER ADDSLOTSRANGE", first, end - 1)
        for port, bus in zip(self.ports[1:], self._buses[1:], strict=True):
            ask(self.ports[0], "CLUSTER MEET", "127.0.0.1", port, bus)
        until(lambda: all(_knows(port, len(self.nodes)) for port in self.ports), "the nodes to meet")
        for primary, replica in zip(self.ports, self.ports[len(self.primaries) :], strict=False):
            ask(replica, "CLUSTER REPLICATE", ask(primary, "CLUSTER MYID").decode())
        self.until_whole()

    def until_whole(self) -> None:
        """Wait until all nodes see all slots served, and every replica follows its primary."""
        until(lambda: all(_is_well(port) for port in self.ports), "the cluster to be whole")

    def primary_of(self, key: str) -> Valkey:
        """Return the node that has `key` now."""
        slot = int(ask(self.ports[0], "CLUSTER KEYSLOT", key))
        for first, last, primary, *_ in ask(self.ports[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self.nodes[self.ports.index(primary[1])]
        raise RuntimeError(f"nobody has {key}")

    def mark_down(self, dead: Valkey) -> None:
        """Let the others say of a dead primary without a replica that its slots are not served."""
        others = [port for port, node in zip(self.ports, self.nodes, strict=True) if node is not dead]
        for timeout_ms in (NODE_TIMEOUT_MS, PATIENT_TIMEOUT_MS):
            for port in others:
                ask(port, "CONFIG SET", "cluster-node-timeout", timeout_ms)
            until(lambda: all(_misses_slots(port) for port in others), "the others to miss it")

    def number_of(self, key: str) -> int:
        """Return which of `primaries` had `key` at first."""
        slot = int(ask(self.ports[0], "CLUSTER KEYSLOT", key))
        return slot * len(self.primaries) // SLOTS

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()


def ask(port: int, *command: str | int) -> Any:
    """Send one command to the node on a port of this machine."""
    with redis.Redis(port=port, socket_timeout=2) as client:
        return client.execute_command(*command)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except redis.RedisError:
            pass
        time.sleep(0.02)
    raise RuntimeError(f"not in time: {what}")


@contextmanager
def running_cluster(folder: Path, *, replicas: bool = False) -> Iterator[ValkeyCluster]:
    cluster = ValkeyCluster(folder, replicas=replicas)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _node(folder: Path, port: int, bus: int, timeout_ms: int) -> Valkey:
    folder.mkdir()
    return Valkey(folder, port, *_options(bus, timeout_ms))


def _options(bus: int, timeout_ms: int) -> Sequence[str]:
    return (
        *("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", str(timeout_ms)),
        # One lost shard is the loss of its own organizations alone.
        *("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"),
        *("--repl-diskless-sync-delay", "0"),
    )


def _info(port: int, section: str) -> dict[str, Any]:
    with redis.Redis(port=port, socket_timeout=2) as client:
        return dict(client.info(section))


def _knows(port: int, count: int) -> bool:
    return len(ask(port, "CLUSTER NODES")) == count


def _misses_slots(port: int) -> bool:
    """Tell that it knows of slots nobody serves, and is in touch with enough others to serve its own."""
    seen = ask(port, "CLUSTER INFO")
    return seen["cluster_state"] == "ok" and int(seen["cluster_slots_fail"]) > 0


def _is_well(port: int) -> bool:
    seen = ask(port, "CLUSTER INFO")
    replication = _info(port, "replication")
    follows = replication["role"] == "master" or replication["master_link_status"] == "up"
    return seen["cluster_state"] == "ok" and int(seen["cluster_slots_ok"]) == SLOTS and follows
