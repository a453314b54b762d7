"""What tenants were told, as plain figures: the requests that were let in, the jobs, the credit."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from support.billing.stand import MODEL, PRICE, RATE
from support.money.processes import GatewayProcess
from tokenyard.core.ids import ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.core.money import NanoDollars, inference_cost, training_cost
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import AdapterHosted, Outcome, StorageHeld, TrainingFinished

NOTHING = TokenUsage(0, 0)


@dataclass
class Tenant:
    """An organization with one project and two keys."""

    organization: OrganizationId
    granted: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    """Credit by idempotency key: certainly given, and asked for."""

    @property
    def project(self) -> ProjectId:
        return ProjectId(f"proj_of_{self.organization}")

    @property
    def keys(self) -> tuple[ApiKeyId, ApiKeyId]:
        return ApiKeyId(f"key0_of_{self.organization}"), ApiKeyId(f"key1_of_{self.organization}")

    @property
    def scopes(self) -> tuple[str, str, str, str]:
        """What may have a monthly limit: the organization, its keys, its project."""
        return self.organization, *self.keys, self.project


@dataclass
class LetIn:
    """A request whose client was told that it is in."""

    id: str
    gateway: GatewayProcess
    claims: MeterClaims
    amount: int
    used: TokenUsage
    attempts: int
    outcome: Outcome | None = None
    counted: TokenUsage = NOTHING
    certain: bool = False
    """Settling it has returned."""
    doubtful: bool = False
    """Its lease may have ended before it was settled."""
    revived: bool = False
    """Its gateway came back after the ledger had charged it."""
    forgotten: bool = False
    """Redis lost it together with its gateway: what it may still cost, nobody holds any more."""
    reported: set[int] = field(default_factory=set)

    @property
    def cost(self) -> int:
        return inference_cost(RATE, self.counted)

    def usage_of(self, attempt: int) -> TokenUsage:
        """Return what the replica of an attempt counts."""
        used = self.used
        return used if attempt == self.attempts else TokenUsage(used.prompt_tokens, 0, used.cached_tokens)

    def may_be_charged(self) -> list[TokenUsage]:
        """Return each usage that the charge table allows, as far as the test can know who was heard in time."""
        said = [self.usage_of(attempt) for attempt in self.reported]
        own = [] if self.outcome is None else [self.counted]
        if not self.certain or self.doubtful:
            return [NOTHING, *own, *said]
        if self.outcome is Outcome.CLIENT_LEFT and self.attempts in self.reported:
            return [self.used, self.counted]  # the report may have come too late
        return own


@dataclass
class Job:
    """A training job whose money was asked for. `reserved`: None where nobody knows."""

    id: JobId
    tenant: Tenant
    key: ApiKeyId
    tokens: int
    reserved: bool | None = None
    trained: int | None = None
    """What it was finished with."""

    @property
    def amount(self) -> NanoDollars:
        return training_cost(RATE, self.tokens)

    def finished(self, tokens: int, at_ms: int) -> TrainingFinished:
        owner = self.tenant.organization, self.tenant.project, self.key
        return TrainingFinished(*owner, self.id, MODEL, MODEL, PRICE, tokens, at_ms)


@dataclass
class Told:
    """Everything that somebody was told."""

    tenants: list[Tenant] = field(default_factory=list)
    requests: dict[str, LetIn] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    unasked: dict[str, AdapterHosted | StorageHeld] = field(default_factory=dict)
    """Hours of fine-tunes and months of gigabytes, for which nobody asked, by charge key."""
    redis_lost: bool = False

    def open(self) -> Iterator[LetIn]:
        """Yield what its gateway still has to settle."""
        return (one for one in self.requests.values() if one.outcome is None and not one.gateway.dead)

    def unfinished_jobs(self) -> Iterator[Job]:
        return (job for job in self.jobs.values() if job.trained is None and job.reserved is not False)
