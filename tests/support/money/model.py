"""What tenants were told, as plain figures: the requests that were let in, the jobs, the credit, the limits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from support.billing.stand import MODEL, PRICE, RATE
from support.money.processes import GatewayProcess
from tokenyard.core.ids import ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.core.money import NanoDollars
from tokenyard.core.price import inference_cost, training_cost
from tokenyard.core.principal import Limits, Principal, ScopedLimits
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import Outcome, TrainingFinished

NOTHING = TokenUsage(0, 0)
PLENTY = 10**12


@dataclass
class Tenant:
    """An organization with one project and two keys. `limits`: what each scope may spend in a month."""

    organization: OrganizationId
    limits: dict[str, NanoDollars] = field(default_factory=dict)
    revision: int = 1
    in_force: int = 1
    """The revision that Redis was told of."""
    before: dict[str, NanoDollars] = field(default_factory=dict)
    """The limits of the revision before, which a gateway may still have in its cache."""
    granted: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    """Credit by idempotency key: certainly given, and asked for."""

    @property
    def project(self) -> ProjectId:
        return ProjectId(f"proj_of_{self.organization}")

    def key(self, number: int) -> ApiKeyId:
        return ApiKeyId(f"key{number}_of_{self.organization}")

    @property
    def scopes(self) -> tuple[str, ...]:
        return self.organization, self.project, self.key(0), self.key(1)

    def principal(self, key: ApiKeyId, *, stale: bool = False, rates: bool = True) -> Principal:
        """Return a caller, with the limits of now or of the last revision, and with rate limits or without."""
        spends = self.before if stale else self.limits
        each = {"tokens_per_minute": PLENTY, "tokens_per_day": PLENTY, "concurrency": 1_000} if rates else {}
        limits = tuple(
            ScopedLimits(name, scope, Limits(monthly_spend=spends.get(scope), **each))
            for name, scope in (("key", key), ("project", self.project), ("organization", self.organization))
        )
        return Principal(self.organization, self.project, key, self.revision - stale, limits)


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
    redis_lost: bool = False

    def begin(self, tenants: list[Tenant]) -> None:
        self.tenants, self.requests, self.jobs, self.redis_lost = tenants, {}, {}, False

    def of(self, organization: OrganizationId) -> Tenant:
        return next(tenant for tenant in self.tenants if tenant.organization == organization)

    def open(self) -> Iterator[LetIn]:
        """Yield what its gateway still has to settle."""
        return (one for one in self.requests.values() if one.outcome is None and not one.gateway.dead)

    async def monthly_limits(
        self, organization: OrganizationId, project: ProjectId, key: ApiKeyId
    ) -> Mapping[str, NanoDollars]:
        """`ports.SpendingLimits`."""
        limits = self.of(organization).limits
        return {scope: limits[scope] for scope in (organization, project, key) if scope in limits}
