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
