"""What discovery tells the gateways about a replica, and what the platform and a replica say to each other.

A replica's internal routes take and give JSON: `STATS_PATH` answers ReplicaState; `LOAD_PATH` takes an AdapterRef and
`UNLOAD_PATH` an AdapterUnload, both answer ResidentAdapters; `USES_PATH` answers AdapterUses; `PINS_PATH` takes and
answers PinnedAdapters; `CANARY_PATH` takes a CanaryRequest, answers CanaryAnswer.
"""

from typing import NamedTuple

import msgspec

INTERNAL_PREFIX = "/internal/"
STATS_PATH = "/internal/stats"
LOAD_PATH = "/internal/adapters/load"
UNLOAD_PATH = "/internal/adapters/unload"
USES_PATH = "/internal/adapters/uses"
PINS_PATH = "/internal/adapters/pins"
CANARY_PATH = "/internal/canary"
LOAD_HEADER = "x-tokenyard-load"

MAX_SEQUENCES = 128
"""The most answers, prompts times choices, that one request may ask for: the largest `n` that OpenAI knows, for one
prompt. More in one request gains nothing over several requests, which can be let in, billed and ended one by one."""

MAX_EMBEDDINGS = 2 * 2048
"""The most texts that one request may have embedded: 2,048 is OpenAI's bound; where they are compared, of each side."""

ENGINE_DEAD = "engine_dead"
"""The error code of a replica that serves no more: the engine has ended or hangs. The request may be right."""


ADAPTER_UNFIT = "adapter_unfit"
"""The error code of a replica for an adapter that does not fit its base model, so that it can never serve it."""


class Replica(msgspec.Struct, frozen=True):
    """One vLLM replica that may get new requests.

    `name` is its identity (never its port); `url` is its own HTTP root; `adapters` are the names it holds in memory.
    What it does was so when it was last looked at; where its number of `slots` is not known, that is 0.
    Ray Serve knows no more of it than name, model and URL: the rest is to be asked of itself.
    """

    name: str
    model: str
    url: str
    adapters: tuple[str, ...] = ()
    running: int = 0
    waiting: int = 0
    slots: int = 0
    waiting_tokens: int = 0


class ReplicaLoad(NamedTuple):
    """What a replica says of itself with every answer, in `LOAD_HEADER`.

    `sequences` are inside, of which `slots` run at once; `waiting_tokens` are those of prompts yet to be computed.
    """

    sequences: int
    slots: int
    waiting_tokens: int

    def header(self) -> bytes:
        return b"%d %d %d" % self

    @classmethod
    def read(cls, header: bytes) -> "ReplicaLoad | None":
        """Return what `header` says, or None where that cannot be read."""
        try:
            sequences, slots, waiting_tokens = map(int, header.split())
        except ValueError:
            return None
        return cls(sequences, slots, waiting_tokens)


class ReplicaLost(Exception):
    """The replica refused the connection or cut it, its machine is gone, or it says that its engine is."""


class ReplicaUnreachable(ReplicaLost):
    """Nobody took the connection: the replica has heard nothing of the request."""


class ConnectionStale(ReplicaLost):
    """A kept connection was cut before any answer: the replica may have closed it as idle, or begun all the same."""


class ReplyOverdue(Exception):
    """The reply, or more of it, did not come in time; of the replica's health this says nothing."""


class ReplyLimits(NamedTuple):
    """How long a reply may be silent, and the event loop's time at which it must be over."""

    silence_s: float
    deadline: float


class AdapterRefused(Exception):
    """The replica answered that it cannot take this adapter, or cannot let go of it now."""


class AdapterUnfit(AdapterRefused):
    """The replica can never serve this adapter, whatever room it has; the message says why, in words for its tenant."""


class ReplicaState(msgspec.Struct, frozen=True):
    """What a replica holds and does: `slots` sequences run at once; of those inside, `waiting` have no slot."""

    replica: str
    model: str
    adapters: tuple[str, ...] = ()
    running: int = 0
    waiting: int = 0
    slots: int = 0
    waiting_tokens: int = 0


class AdapterUnload(msgspec.Struct, frozen=True):
    name: str


class ResidentAdapters(msgspec.Struct, frozen=True):
    adapters: tuple[str, ...]


class AdapterUses(msgspec.Struct, frozen=True):
    """How often a replica is asked for each adapter, resident or not: `rates` are requests a second, of late."""

    rates: dict[str, float]
    pinned: tuple[str, ...]
    places: int = 0


class PinnedAdapters(msgspec.Struct, frozen=True):
    """These make room for no other adapter once they are resident; the most important one first."""

    names: tuple[str, ...]


class CanaryRequest(msgspec.Struct, frozen=True):
    """Asks for the log-probabilities of a fixed continuation; without `adapter` the base model answers."""

    prompt: str
    adapter: str | None = None


class CanaryAnswer(msgspec.Struct, frozen=True):
    """One log-probability for each token of the continuation."""

    logprobs: tuple[float, ...]
