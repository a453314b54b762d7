"""However events are ordered, repeated and cut into batches, the charges are the same and the books agree."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from support.billing.stand import (
    MARCH_MS,
    budget_outbox,
    charges,
    claims,
    expired,
    intake,
    journal_sum,
    reconciler,
    reported,
    settled,
    usage,
)
from tokenyard.core.ids import OrganizationId, new_organization_id, new_request_id
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import HoldExpired, Outcome, ReplicaReported, Settled
from tokenyard.storage.database import Database
from tokenyard_billing.charging.decision import decide
from tokenyard_billing.charging.intake import Intake, Received
from tokenyard_billing.charging.reports import report_of

COUNTS = st.builds(
    lambda fresh, cached, completion: usage(fresh + cached, completion, cached),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 50),
)


@dataclass(frozen=True)
class Said:
    """What is said of an attempt: by a replica (`finished`), by a gateway (`outcome`) or by a hold that expired."""

    attempt: int
    count: TokenUsage | None = None
    finished: bool | None = None
    outcome: Outcome | None = None

    def event(self, request: str, organization: OrganizationId) -> Settled | ReplicaReported | HoldExpired:
        made = claims(request, self.attempt, organization)
        if self.count is None:
            return expired(made)
        if self.outcome is None:
            return reported(made, self.count, finished=self.finished is True)
        return settled(made, self.count, self.outcome)


@st.composite
def request_events(draw: st.DrawFn) -> list[Said]:
    """Draw what is said of one request."""
    attempts = draw(st.integers(1, 3))
    said: list[Said] = []
    for attempt in range(1, attempts + 1):
        if draw(st.booleans()):
            said.append(Said(attempt, finished=draw(st.booleans()), count=draw(COUNTS)))
    ending = draw(st.sampled_from(["settled", "expired", "both", "neither"]))
    if ending in {"settled", "both"}:
        said.append(Said(attempts, outcome=draw(st.sampled_from(Outcome)), count=draw(COUNTS)))
    if ending in {"expired", "both"}:
        said.append(Said(attempts))
    return said


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(said=st.lists(request_events(), min_size=1, max_size=6), data=st.data())
async def test_any_order_any_batches_three_deliveries(
    database: Database, redis: Redis, said: list[list[Said]], data: st.DataObject
) -> None:
    organization = new_organization_id()
    events: list[Received] = []
    expected = {}
    for of_request in said:
        request = new_request_id()
        made = [one.event(request, organization) for one in of_request]
        events += [Received(event, MARCH_MS) for event in made]
        decision = decide([report_of(event, 0) for event in made], waited=True)
        if decision:
            expected[request] = (decision.rule, decision.attempt, decision.usage.total_tokens)
    deliveries = data.draw(st.permutations(events * 3))
    size = data.draw(st.integers(1, max(1, len(deliveries))))

    taker = intake(database)
    for start in range(0, len(deliveries), size):
        await _take(database, redis, taker, deliveries[start : start + size])
    async with database.transaction() as session:
        taken = await taker.take_overdue(session, list(expected), MARCH_MS)
    await budget_outbox(database, redis).carry(taken.messages)
    await _take(database, redis, taker, deliveries)

    found = {key: charge for key, charge in (await charges(database)).items() if charge.organization == organization}
    assert {
        key: (charge.rule, charge.attempt, charge.prompt_tokens + charge.completion_tokens)
        for key, charge in found.items()
    } == expected
    assert await journal_sum(database) == 0
    books = await reconciler(database, redis).reconcile()
    assert [difference for difference in books.differences if difference.broken] == []
    assert books.tokens.unexplained == 0


async def _take(database: Database, redis: Redis, taker: Intake, batch: Sequence[Received]) -> None:
    async with database.transaction() as session:
        taken = await taker.take(session, batch, MARCH_MS)
    await budget_outbox(database, redis).carry(taken.messages)
