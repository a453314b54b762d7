"""What travels on the usage stream: who used how many tokens, and how each request ended."""

from enum import StrEnum

import msgspec

from tokenyard.core.ids import AdapterId, ApiKeyId, JobId, OrganizationId, PriceId, ProjectId
from tokenyard.core.money import STORAGE
from tokenyard.core.usage import MeterClaims, TokenUsage

HOUR_MS = 3_600_000


class Outcome(StrEnum):
    """How a request ended, as its gateway saw it (the charge table of the design, section 4)."""

    COMPLETED = "completed"
    CLIENT_LEFT = "client_left"
    LEFT_ELSEWHERE = "left_elsewhere"  # the client left a server elsewhere, of which no report will come
    REPLICA_LOST = "replica_lost"
    FAILED = "failed"  # every attempt failed before its first byte: charged nothing


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """The gateway's report. `claims.attempt` is the attempt it relayed; `usage` is what it counted there."""

    claims: MeterClaims
    outcome: Outcome
    usage: TokenUsage
    settled_at_ms: int


class ReplicaReported(msgspec.Struct, frozen=True, tag="replica_reported"):
    """The replica's report of one attempt, also when it was aborted. Billable alone."""

    claims: MeterClaims
    usage: TokenUsage
    replica: str
    finished: bool  # False when it was aborted
    reported_at_ms: int


class HoldExpired(msgspec.Struct, frozen=True, tag="hold_expired"):
    """No gateway renewed this request's hold: its gateway is gone."""

    claims: MeterClaims
    expired_at_ms: int


class TrainingFinished(msgspec.Struct, frozen=True, tag="training_finished"):
    """A fine-tuning job came to its end, with the tokens it trained on (0: nothing to charge)."""

    organization: OrganizationId
    project: ProjectId
    key: ApiKeyId
    job: JobId
    model: str
    base_model: str
    price: PriceId
    trained_tokens: int
    admitted_at_ms: int
    budgets: tuple[str, ...] = ()

    @property
    def charge_key(self) -> str:
        return self.job


class AdapterHosted(msgspec.Struct, frozen=True, tag="adapter_hosted"):
    """A fine-tune was live as the hour of UTC that starts at `admitted_at_ms` began.

    `pinned`: replicas kept it in memory. `key` made it. Nobody claims a price: the hour and the base model decide.
    """

    organization: OrganizationId
    project: ProjectId
    key: ApiKeyId
    adapter: AdapterId
    model: str
    base_model: str
    admitted_at_ms: int
    pinned: bool = False
    price: PriceId = PriceId("")
    budgets: tuple[str, ...] = ()

    @property
    def charge_key(self) -> str:
        return f"{self.adapter}:{self.admitted_at_ms // HOUR_MS}"


class StorageHeld(msgspec.Struct, frozen=True, tag="storage_held"):
    """An organization has kept a gigabyte (10^9 bytes) for one more month (720 hours), the `number`-th of all.

    `admitted_at_ms` is the hour of UTC that completed it. It belongs to no project and to no key, and nobody claims a
    price: the hour decides.
    """

    organization: OrganizationId
    number: int
    admitted_at_ms: int
    model: str = STORAGE
    base_model: str = STORAGE
    project: ProjectId = ProjectId("")
    key: ApiKeyId = ApiKeyId("")
    price: PriceId = PriceId("")
    budgets: tuple[str, ...] = ()

    @property
    def charge_key(self) -> str:
        return f"{self.organization}:{STORAGE}:{self.number}"


StandaloneUse = TrainingFinished | AdapterHosted | StorageHeld
"""What no request used: it has no two witnesses, and is charged as it stands, once for its `charge_key`."""
UsageEvent = Settled | ReplicaReported | HoldExpired | TrainingFinished | AdapterHosted | StorageHeld

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[UsageEvent] = msgspec.json.Decoder(UsageEvent)


def organization_of(event: UsageEvent) -> OrganizationId:
    """Return whose usage it is."""
    return event.organization if isinstance(event, StandaloneUse) else event.claims.organization


def encode_event(event: UsageEvent) -> bytes:
    """Return the event as the JSON that stands in the stream's `event` field."""
    return _ENCODER.encode(event)


def decode_event(data: bytes) -> UsageEvent:
    """Read one event; what is of no known kind and shape raises `msgspec.MsgspecError`."""
    return _DECODER.decode(data)
