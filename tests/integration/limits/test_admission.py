"""Admit and settle against a real Valkey."""

import asyncio

import msgspec
import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import (
    KEY,
    ORGANIZATION,
    PROJECT,
    BudgetTable,
    admission_request,
    principal,
    settled,
)
from support.money.live_budgets import put_budget, read_budget, read_pending
from support.redis_reader import read_scope, read_usage
from tokenyard.core.admission import PrincipalOutdated
from tokenyard.core.budgets import BudgetState, BudgetUpdate, monthly, wallet
from tokenyard.core.errors import BudgetInUse, Conflict, QuotaExceeded, RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId, request_of
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits, Principal
from tokenyard.core.redis_keys import bucket_of, holds, ready, revision, undecided, usage_stream, windows
from tokenyard.core.usage import TokenUsage
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.limits.holds import key_of
from tokenyard.limits.live_budgets import RedisBudgets
from tokenyard.limits.revisions import RedisRevisions
from tokenyard.metering.events import Outcome, Settled

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)


async def figures(redis: Redis) -> BudgetFigures:
    return await read_budget(redis, BUCKET, WALLET)


@pytest.fixture(autouse=True)
def money(budgets: BudgetTable) -> None:
    budgets.set(WALLET, 1000)


async def test_a_request_is_held_then_settled_at_its_real_cost(admission: RedisAdmission, redis: Redis) -> None:
    admitted = await admission.admit(admission_request(principal(), amount=100))
    assert await figures(redis) == BudgetFigures(1000, 1, held=100)
    assert admitted.claims.budgets == (WALLET,)
    assert abs(admitted.claims.admitted_at_ms / 1000 - (await redis.time())[0]) < 5

    report = settled(admitted.claims)
    await admission.settle(report, NanoDollars(30))
    assert await figures(redis) == BudgetFigures(1000, 1, pending=30)
    assert await read_pending(redis, BUCKET, WALLET) == {key_of(admitted.claims): 30}
    assert await read_usage(redis, ORGANIZATION) == [report]
    assert await redis.zcard(holds(BUCKET)) == 0


async def test_settling_again_changes_nothing(admission: RedisAdmission, redis: Redis) -> None:
    admitted = await admission.admit(admission_request(principal()))
    await asyncio.gather(*(admission.settle(settled(admitted.claims), NanoDollars(30)) for _ in range(3)))
    assert (await figures(redis)).pending == 30
    assert await redis.xlen(usage_stream(BUCKET)) == 1


async def test_admitting_the_same_request_again_takes_nothing_more(admission: RedisAdmission, redis: Redis) -> None:
    caller = principal(key=Limits(requests_per_minute=1, concurrency=1, tokens_per_minute=10))
    request = admission_request(caller, tokens=10)
    first = await admission.admit(request)
    second = await admission.admit(request)
    assert second.claims == first.claims
    assert (await figures(redis)).held == 100
    assert (await read_scope(redis, BUCKET, KEY)).slots == 1


async def test_a_settled_request_cannot_come_in_again(admission: RedisAdmission) -> None:
    request = admission_request(principal())
    admitted = await admission.admit(request)
    await admission.settle(settled(admitted.claims), NanoDollars(30))
    with pytest.raises(Conflict):
        await admission.admit(request)


async def test_a_failed_request_costs_nothing_and_is_reported(admission: RedisAdmission, redis: Redis) -> None:
    admitted = await admission.admit(admission_request(principal()))
    report = Settled(admitted.claims, Outcome.FAILED, TokenUsage(0, 0), 1)
    await admission.settle(report, NanoDollars(0))
    assert await figures(redis) == BudgetFigures(1000, 1)
    assert await redis.xlen(usage_stream(BUCKET)) == 1


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(requests_per_minute=2), "requests per min (RPM): Limit 2, Used 2, Requested 1."),
        (Limits(requests_per_day=2), "requests per day (RPD): Limit 2, Used 2, Requested 1."),
        (Limits(tokens_per_minute=25), "tokens per min (TPM): Limit 25, Used 20, Requested 10."),
        (Limits(tokens_per_day=25), "tokens per day (TPD): Limit 25, Used 20, Requested 10."),
        (Limits(concurrency=2), "concurrent requests: Limit 2, Used 2, Requested 1."),
    ],
)
@pytest.mark.parametrize("scope", ["key", "project", "organization"])
async def test_each_limit_of_each_scope_refuses(
    admission: RedisAdmission, redis: Redis, limits: Limits, name: str, scope: str
) -> None:
    callers = {
        "key": principal(key=limits),
        "project": principal(project=limits),
        "organization": principal(organization=limits),
    }
    caller = callers[scope]
    for _ in range(2):
        await admission.admit(admission_request(caller, tokens=10))
    before = await figures(redis)
    with pytest.raises(RateLimited) as refused:
        await admission.admit(admission_request(caller, tokens=10))
    owner = {"key": KEY, "project": PROJECT, "organization": ORGANIZATION}[scope]
    assert refused.value.message.startswith(f"Rate limit reached for {scope} {owner} on {name} Please try again in ")
    assert refused.value.type == ("tokens" if "tokens" in name else "requests")
    wait_s = int(refused.value.headers["retry-after"])
    window_s = 65 if "per min" in name else 1 if "concurrent" in name else 26 * 3600
    assert 0 < wait_s <= window_s
    assert await figures(redis) == before


async def test_a_refusal_takes_nothing_of_what_was_free(admission: RedisAdmission, redis: Redis) -> None:
    roomy = Limits(requests_per_minute=100, tokens_per_minute=1000, concurrency=100)
    caller = principal(key=roomy, project=Limits(requests_per_minute=0), organization=roomy)
    with pytest.raises(RateLimited):
        await admission.admit(admission_request(caller))
    assert await redis.keys("*windows*") == []
    assert await redis.keys("*holds*") + await redis.keys("*request*") == []
    assert (await figures(redis)).held == 0


async def test_a_request_above_the_whole_limit_is_not_worth_a_retry(admission: RedisAdmission) -> None:
    with pytest.raises(RateLimited) as refused:
        await admission.admit(admission_request(principal(key=Limits(tokens_per_minute=5)), tokens=10))
    assert refused.value.headers["x-should-retry"] == "false"
    assert "Request too large" in refused.value.message


async def test_headers_tell_the_tightest_windows(admission: RedisAdmission) -> None:
    caller = principal(
        key=Limits(requests_per_minute=100, tokens_per_minute=500), organization=Limits(requests_per_minute=3)
    )
    admitted = await admission.admit(admission_request(caller, tokens=10))
    headers = admitted.rates.headers()
    assert headers["x-ratelimit-limit-requests"] == "3"
    assert headers["x-ratelimit-remaining-requests"] == "2"
    assert headers["x-ratelimit-limit-tokens"] == "500"
    assert headers["x-ratelimit-remaining-tokens"] == "490"
    assert headers["x-ratelimit-reset-tokens"].startswith("1m")


async def test_settling_gives_back_the_tokens_that_were_not_used(admission: RedisAdmission) -> None:
    caller = principal(key=Limits(tokens_per_minute=25))
    admitted = await admission.admit(admission_request(caller, tokens=20))
    await admission.settle(settled(admitted.claims, prompt=4, completion=1), NanoDollars(1))
    again = await admission.admit(admission_request(caller, tokens=20))
    assert again.rates.tokens is not None
    assert again.rates.tokens.remaining == 0


async def test_settling_frees_the_slot(admission: RedisAdmission, redis: Redis) -> None:
    caller = principal(key=Limits(concurrency=1))
    for _ in range(3):
        admitted = await admission.admit(admission_request(caller))
        await admission.settle(settled(admitted.claims), NanoDollars(1))
    assert (await read_scope(redis, BUCKET, KEY)).slots == 0


@pytest.mark.parametrize(
    ("budget_of", "code"),
    [
        ("wallet", "credit_balance_exhausted"),
        ("organization", "organization_spend_limit_exceeded"),
        ("project", "project_spend_limit_exceeded"),
        ("key", "insufficient_quota"),
    ],
)
async def test_each_budget_refuses_with_its_code(
    admission: RedisAdmission, redis: Redis, budgets: BudgetTable, budget_of: str, code: str
) -> None:
    spend = Limits(monthly_spend=NanoDollars(10_000))
    caller = principal(key=spend, project=spend, organization=spend)
    names = {"wallet": WALLET} | {
        scope: monthly(owner, 0)
        for scope, owner in (("key", KEY), ("project", PROJECT), ("organization", ORGANIZATION))
    }
    for name in names.values():
        budgets.set(name, 10_000 if name == WALLET else 0)
    budgets.set(names[budget_of], 99 if budget_of == "wallet" else 99 - 10_000)
    with pytest.raises(QuotaExceeded) as refused:
        await admission.admit(admission_request(caller, amount=100))
    assert refused.value.code == code
    assert refused.value.headers["x-should-retry"] == "false"
    assert "$0.0000001, and $0.000000099 is available" in refused.value.message
    assert await redis.zcard(holds(BUCKET)) == 0


async def test_a_missing_budget_is_loaded_once_for_all_who_wait(
    admission: RedisAdmission, budgets: BudgetTable
) -> None:
    await asyncio.gather(*(admission.admit(admission_request(principal(), amount=1)) for _ in range(50)))
    assert budgets.loads == 1


async def test_an_organization_without_a_wallet_has_no_credit(admission: RedisAdmission, budgets: BudgetTable) -> None:
    budgets.states.clear()
    with pytest.raises(QuotaExceeded, match=r"\$0.00 is available"):
        await admission.admit(admission_request(principal()))


async def test_an_older_load_never_overwrites_a_newer_figure(
    admission: RedisAdmission, redis: Redis, budgets: BudgetTable
) -> None:
    await put_budget(redis, BUCKET, WALLET, BudgetFigures(50, 9))
    with pytest.raises(QuotaExceeded):
        await admission.admit(admission_request(principal(), amount=100))
    assert await figures(redis) == BudgetFigures(50, 9)


async def test_an_unloaded_bucket_answers_503(admission: RedisAdmission, redis: Redis) -> None:
    await redis.delete(ready(BUCKET))
    with pytest.raises(Unavailable) as refused:
        await admission.admit(admission_request(principal()))
    assert int(refused.value.headers["retry-after"]) > 0


async def test_a_caller_looked_up_before_the_last_change_is_refused(admission: RedisAdmission, redis: Redis) -> None:
    await admission.admit(admission_request(principal(revision=1)))
    revisions = RedisRevisions(redis)
    await revisions.raise_to(ORGANIZATION, 3)
    await revisions.raise_to(ORGANIZATION, 2)  # a late word of an earlier change
    for old in (1, 2):
        with pytest.raises(PrincipalOutdated):
            await admission.admit(admission_request(principal(revision=old)))
    await admission.admit(admission_request(principal(revision=3)))


async def test_a_revision_that_redis_lost_is_learned_from_callers(admission: RedisAdmission, redis: Redis) -> None:
    await admission.admit(admission_request(principal(revision=10)))
    await admission.admit(admission_request(principal(revision=11)))
    with pytest.raises(PrincipalOutdated):
        await admission.admit(admission_request(principal(revision=9)))
    assert await redis.get(revision(BUCKET, ORGANIZATION)) == b"11"


async def test_a_client_that_leaves_while_it_is_admitted_keeps_nothing(admission: RedisAdmission, redis: Redis) -> None:
    await put_budget(redis, BUCKET, WALLET, BudgetFigures(1000, 1))
    once = Limits(1, 10, 1, 10, 1)
    waiting = asyncio.create_task(admission.admit(admission_request(principal(key=once, project=once))))
    await asyncio.sleep(0)  # it runs until it waits for the script
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    async with asyncio.timeout(10):
        while not await redis.exists(windows(BUCKET, KEY)) or (await figures(redis)).held:  # taken, then given back
            await admission.renew()
    await admission.admit(admission_request(principal(key=once, project=once)))


async def test_a_client_that_leaves_as_it_is_admitted_keeps_nothing(admission: RedisAdmission, redis: Redis) -> None:
    """In the moment between the answer of Redis and our reading of it."""

    async def end_the_other() -> None:
        await admission.admit(admission_request(principal(), amount=100))
        other.cancel()  # it was answered in the same round trip

    one = asyncio.create_task(end_the_other())
    other = asyncio.create_task(admission.admit(admission_request(principal(), amount=1)))
    await asyncio.wait([one, other])
    assert other.cancelled()
    assert (await figures(redis)).held == 101
    await admission.renew()
    assert (await figures(redis)).held == 100


async def test_one_tenant_at_its_limits_leaves_another_alone(
    admission: RedisAdmission, redis: Redis, budgets: BudgetTable
) -> None:
    neighbour = OrganizationId("org_neighbour")
    budgets.set(wallet(neighbour), 1000)
    noisy = principal(organization=Limits(requests_per_minute=2))
    quiet = principal(organization=Limits(requests_per_minute=2), organization_id=neighbour)
    await asyncio.gather(*(admission.admit(admission_request(noisy)) for _ in range(20)), return_exceptions=True)
    admitted = await admission.admit(admission_request(quiet))
    assert admitted.rates.requests is not None
    assert admitted.rates.requests.remaining == 1


async def test_amounts_are_exact_far_beyond_what_lua_counts_exactly(
    admission: RedisAdmission, redis: Redis, budgets: BudgetTable
) -> None:
    large = 2**59 + 1
    await put_budget(redis, BUCKET, WALLET, BudgetFigures(large, 1))
    await admission.admit(admission_request(principal(), amount=large - 1))
    with pytest.raises(BudgetInUse, match="other requests"):
        await admission.admit(admission_request(principal(), amount=2))
    await admission.admit(admission_request(principal(), amount=1))
    assert (await figures(redis)).held == large


async def test_a_thousand_at_once_never_overspend(admission: RedisAdmission, redis: Redis) -> None:
    answers = await asyncio.gather(
        *(admission.admit(admission_request(principal(), amount=7)) for _ in range(1000)), return_exceptions=True
    )
    admitted = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(admitted) == 1000 // 7
    assert all(isinstance(answer, BudgetInUse) for answer in answers if isinstance(answer, BaseException))

    await asyncio.gather(*(admission.settle(settled(one.claims), NanoDollars(5)) for one in admitted))
    # What was held and not spent is free again, to the last nano-dollar.
    left = 1000 - len(admitted) * 5
    await admission.admit(admission_request(principal(), amount=left))
    with pytest.raises(BudgetInUse):
        await admission.admit(admission_request(principal(), amount=1))
    assert await figures(redis) == BudgetFigures(1000, 1, pending=len(admitted) * 5, held=left)


async def test_a_shortage_that_others_cause_is_worth_a_retry(admission: RedisAdmission, redis: Redis) -> None:
    first = await admission.admit(admission_request(principal(), amount=900))
    with pytest.raises(BudgetInUse) as refused:
        await admission.admit(admission_request(principal(), amount=200))
    assert refused.value.status == 429
    assert "x-should-retry" not in refused.value.headers
    assert refused.value.headers["retry-after"] == "1"
    await admission.settle(settled(first.claims), NanoDollars(1))
    await admission.admit(admission_request(principal(), amount=200))
    with pytest.raises(QuotaExceeded):
        await admission.admit(admission_request(principal(), amount=1001))


@pytest.mark.parametrize("limits", [Limits(tokens_per_minute=25), Limits(tokens_per_day=25)])
async def test_a_client_that_leaves_early_spends_its_hold_until_the_ledger_decides(
    admission: RedisAdmission, redis: Redis, limits: Limits
) -> None:
    caller = principal(key=msgspec.structs.replace(limits, concurrency=1))
    admitted = await admission.admit(admission_request(caller, amount=600, tokens=20))
    await admission.settle(
        settled(admitted.claims, prompt=0, completion=0, outcome=Outcome.CLIENT_LEFT), NanoDollars(0)
    )
    assert await figures(redis) == BudgetFigures(1000, 1, pending=600)
    with pytest.raises(RateLimited, match="Used 20, Requested 10"):
        await admission.admit(admission_request(caller, amount=1, tokens=10))
    with pytest.raises(BudgetInUse):
        await admission.admit(admission_request(caller, amount=500, tokens=1))

    budgets, request = RedisBudgets(redis), request_of(admitted.claims.attempt)
    for _ in range(2):  # the outbox may carry it again
        await budgets.apply([(ORGANIZATION, [BudgetUpdate(WALLET, BudgetState(NanoDollars(997), 2), [request])])])
        await budgets.decide([(ORGANIZATION, {request: 7})])
        again = await admission.admit(admission_request(caller, amount=997, tokens=18))
        await admission.settle(settled(again.claims, prompt=0, completion=0), NanoDollars(0))
    assert await figures(redis) == BudgetFigures(997, 2)
    assert not await redis.exists(undecided(BUCKET, request))


async def test_a_changed_monthly_limit_holds_for_the_next_request(admission: RedisAdmission) -> None:
    def caller(limit: int) -> Principal:
        return principal(project=Limits(monthly_spend=NanoDollars(limit)))

    await admission.admit(admission_request(caller(500), amount=300))
    with pytest.raises(QuotaExceeded):
        await admission.admit(admission_request(caller(500), amount=501))
    await admission.admit(admission_request(caller(801), amount=501))
    with pytest.raises(BudgetInUse):
        await admission.admit(admission_request(caller(801), amount=1))
    await admission.admit(admission_request(caller(802), amount=1))
