"""Requests to admit, and budgets to hold them on."""

from redis.asyncio import Redis

from tokenyard.core.admission import AdmissionRequest
from tokenyard.core.budgets import BudgetState, budgets_of
from tokenyard.core.ids import ApiKeyId, OrganizationId, PriceId, ProjectId, RequestId, attempt_id, new_request_id
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits, LocalShare, Principal, ScopedLimits
from tokenyard.core.redis_keys import BUCKETS, ready
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard.metering.events import Outcome, Settled

ORGANIZATION = OrganizationId("org_test")
PROJECT = ProjectId("proj_test")
KEY = ApiKeyId("key_test")
MID_MONTH_MS = 14 * 86_400_000


class BudgetTable:
    """Budgets as SQL would have them: name -> state."""

    def __init__(self) -> None:
        self.states: dict[str, BudgetState] = {}
        self.loads = 0

    def set(self, name: str, ledger: int, version: int = 1) -> None:
        self.states[name] = BudgetState(NanoDollars(ledger), version)

    async def load(self, organization: OrganizationId, name: str) -> BudgetState:
        self.loads += 1
        return self.states.get(name, BudgetState(NanoDollars(0), 0))


async def open_buckets(redis: Redis) -> None:
    """Say that every bucket's budgets are loaded."""
    for bucket in range(BUCKETS):  # one by one: a cluster has them on different nodes
        await redis.set(ready(bucket), 1)


def principal(
    *,
    key: Limits | None = None,
    project: Limits | None = None,
    organization: Limits | None = None,
    revision: int = 1,
    organization_id: OrganizationId = ORGANIZATION,
    local_share: LocalShare | None = None,
) -> Principal:
    """Return a key of the test organization, with the limits given."""
    given = (("key", KEY, key), ("project", PROJECT, project), ("organization", organization_id, organization))
    limits = tuple(ScopedLimits(scope, scope_id, limit) for scope, scope_id, limit in given if limit is not None)
    return Principal(organization_id, PROJECT, KEY, revision, limits, local_share=local_share)


def admission_request(
    caller: Principal,
    *,
    amount: int = 100,
    tokens: int = 10,
    request: RequestId | None = None,
    at_ms: int = MID_MONTH_MS,
) -> AdmissionRequest:
    """Return a request of `caller` that may cost `amount` nano-dollars and use `tokens` tokens."""
    claims = MeterClaims(
        attempt=attempt_id(request or new_request_id(), 1),
        organization=caller.organization,
        project=caller.project,
        key=caller.key,
        model="test-model",
        base_model="test-model",
        price=PriceId("test/test-model"),
        admitted_at_ms=0,
        endpoint="/v1/chat/completions",
    )
    budgets = budgets_of(caller.organization, caller.monthly_limits, at_ms)
    return AdmissionRequest(caller, claims, tokens, NanoDollars(amount), budgets)


def settled(
    claims: MeterClaims, *, prompt: int = 4, completion: int = 3, outcome: Outcome = Outcome.COMPLETED
) -> Settled:
    """Return the gateway's report of a request that ended."""
    usage = TokenUsage(prompt, completion)
    return Settled(claims, outcome, usage, claims.admitted_at_ms + 1000)
