"""What discovery tells the gateways about a replica."""

import msgspec


class Replica(msgspec.Struct, frozen=True):
    """One vLLM replica that may get new requests.

    `name` is its identity (never its port); `url` is its own HTTP root; `adapters` are the names it holds in memory.
    """

    name: str
    model: str
    url: str
    adapters: tuple[str, ...] = ()
    running: int = 0
    waiting: int = 0


class ReplicaLost(Exception):
    """The replica refused the connection, cut it, or stayed silent too long."""


class AdapterRefused(Exception):
    """The replica answered that it cannot take this adapter, or cannot let go of it now."""


class ReplicaTarget(msgspec.Struct, frozen=True):
    """A replica as Ray Serve knows it: where to ask it for the rest."""

    name: str
    model: str
    url: str


class ReplicaState(msgspec.Struct, frozen=True):
    """What a replica answers to `GET /internal/stats`."""

    replica: str
    model: str
    adapters: tuple[str, ...] = ()
    running: int = 0
    waiting: int = 0
