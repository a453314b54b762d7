"""A creation that is sent again under its `Idempotency-Key` is the same job and one reservation."""

import asyncio
from typing import Any

import httpx2
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from support.finetune.fixtures import BLOCKED_KEY, Platform
from support.finetune.ports import MemoryReservations
from support.finetune.rows import rows
from support.finetune.stack import FinetuneStack, principal
from support.openai_errors import error_of
from tokenyard.core.errors import BudgetInUse, Conflict, QuotaExceeded
from tokenyard.core.ids import new_job_id
from tokenyard.finetune.job_request import JobRequest
from tokenyard.finetune.states import JobState
from tokenyard.finetune.tables import JobRow

KEY = "1f3e9a4c-retry"


async def _file(platform: Platform, client: openai.AsyncOpenAI | None = None) -> str:
    made = await (client or platform.acme).files.create(file=("teach.jsonl", rows(20)), purpose="fine-tune")
    return made.id


async def _create(client: openai.AsyncOpenAI, file: str, key: str | None = KEY, **changes: Any) -> FineTuningJob:
    headers = {"Idempotency-Key": key} if key is not None else {}
    asked = {"model": "small-model", "training_file": file, **changes}
    return await client.fine_tuning.jobs.create(**asked, extra_headers=headers)


async def _count(platform: Platform) -> int:
    async with platform.database.reading() as session:
        return await session.scalar(select(func.count()).select_from(JobRow)) or 0


async def test_the_same_creation_again_is_the_same_job_and_one_reservation(platform: Platform) -> None:
    file = await _file(platform)
    first = await _create(platform.acme, file, metadata={"team": "blue", "for": "sky"})
    again = await _create(platform.acme, file, metadata={"for": "sky", "team": "blue"}, suffix=None)
    assert again == first
    assert list(platform.reservations.open) == [first.id]
    assert await _count(platform) == 1


async def test_a_blocked_organization_creates_no_job_and_still_sees_those_it_has(platform: Platform) -> None:
    file = await _file(platform)
    there = await _create(platform.acme, file)
    blocked = platform.acme.with_options(api_key=BLOCKED_KEY)
    with pytest.raises(openai.RateLimitError, match="an invoice is overdue") as refused:
        await _create(blocked, file, "another")
    assert refused.value.code == "insufficient_quota"
    assert await _count(platform) == 1
    assert [job.id async for job in blocked.fine_tuning.jobs.list()] == [there.id]


async def test_it_is_the_same_job_at_every_later_time(platform: Platform) -> None:
    file = await _file(platform)
    first = await _create(platform.acme, file)
    for number in range(2):
        await _create(platform.acme, file, f"other-{number}")
    with pytest.raises(openai.RateLimitError):
        await _create(platform.acme, file, "one-more")
    assert await _create(platform.acme, file) == first, "no new job, so no limit of jobs"
    cancelled = await platform.acme.fine_tuning.jobs.cancel(first.id)
    assert await _create(platform.acme, file) == cancelled


async def test_the_sdk_that_lost_the_answer_makes_one_job(platform: Platform) -> None:
    """The SDK sends a key of its own with each retry where it is told the header's name."""
    file = await _file(platform)
    lossy = Lossy()
    async with httpx2.AsyncClient(transport=lossy) as http:
        client = openai.AsyncOpenAI(api_key="ty-acme", base_url=f"{platform.url}/v1", http_client=http, max_retries=2)
        client._idempotency_header = "Idempotency-Key"
        job = await client.fine_tuning.jobs.create(model="small-model", training_file=file)
    assert lossy.lost == 1
    assert list(platform.reservations.open) == [job.id]
    assert await _count(platform) == 1


class Lossy(httpx2.AsyncHTTPTransport):
    """Loses the first answer on its way."""

    lost = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await super().handle_async_request(request)
        if self.lost == 0:
            self.lost += 1
            await answer.aclose()
            raise httpx2.ReadError("the answer is lost")
        return answer


async def test_without_a_key_or_under_another_each_is_a_job_of_its_own(platform: Platform) -> None:
    file = await _file(platform)
    jobs = [await _create(platform.acme, file, key) for key in (KEY, None, "another")]
    assert len({job.id for job in jobs}) == 3
    assert set(platform.reservations.open) == {job.id for job in jobs}


async def test_another_organization_s_key_is_its_own(platform: Platform) -> None:
    mine = await _create(platform.acme, await _file(platform))
    theirs = await _create(platform.rival, await _file(platform, platform.rival))
    assert (mine.organization_id, theirs.organization_id) == ("org_acme", "org_rival")
    assert mine.id != theirs.id


async def test_a_key_for_another_creation_is_refused(platform: Platform) -> None:
    file = await _file(platform)
    job = await _create(platform.acme, file)
    for change in ({"seed": 7}, {"suffix": "sky"}, {"metadata": {"a": "b"}}, {"hyperparameters": {"n_epochs": 2}}):
        with pytest.raises(openai.BadRequestError) as refused:
            await _create(platform.acme, file, **change)
        assert error_of(refused.value)["code"] == "idempotency_key_reused"
        assert error_of(refused.value)["type"] == "invalid_request_error"
    assert list(platform.reservations.open) == [job.id]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tinside", "naïve"], ids=["empty", "long", "control", "accent"])
async def test_a_key_that_cannot_be_is_refused_with_the_header(platform: Platform, key: str) -> None:
    headers = {b"authorization": b"Bearer ty-acme", b"idempotency-key": key.encode()}
    body = {"model": "small-model", "training_file": "file-1"}
    async with httpx2.AsyncClient(base_url=platform.url) as http:
        refused = await http.post("/v1/fine_tuning/jobs", json=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_many_at_once_are_one_job(platform: Platform) -> None:
    file = await _file(platform)
    jobs = await asyncio.gather(*(_create(platform.acme, file) for _ in range(6)))
    assert len({job.id for job in jobs}) == 1
    assert list(platform.reservations.open) == [jobs[0].id]
    assert await _count(platform) == 1


class HeldUp:
    """Reservations that wait for a sign."""

    def __init__(self, reservations: MemoryReservations) -> None:
        self._reserve = reservations.reserve
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def reserve(self, *arguments: Any) -> None:
        self.reached.set()
        await self.go_on.wait()
        await self._reserve(*arguments)


async def test_who_comes_while_the_first_is_reserving_waits_for_it(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await _file(platform)
    held_up = HeldUp(platform.reservations)
    monkeypatch.setattr(platform.reservations, "reserve", held_up.reserve)
    first = asyncio.create_task(_create(platform.acme, file))
    await held_up.reached.wait()
    second = asyncio.create_task(_create(platform.acme, file))
    with pytest.raises(openai.BadRequestError):
        await _create(platform.acme, file, seed=7)
    assert not second.done()
    held_up.go_on.set()
    assert await first == await second
    assert len(platform.reservations.open) == 1


async def test_a_creation_that_was_refused_may_be_tried_again(platform: Platform) -> None:
    file = await _file(platform)
    enough = platform.reservations.wallet
    platform.reservations.wallet = 1000
    with pytest.raises(openai.RateLimitError):
        await _create(platform.acme, file)
    platform.reservations.wallet = enough
    job = await _create(platform.acme, file, seed=7)
    assert list(platform.reservations.open) == [job.id]


async def test_a_creation_that_broke_may_be_tried_again(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    file = await _file(platform)

    async def broken(*_arguments: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(platform.reservations, "reserve", broken)
        with pytest.raises(openai.InternalServerError):
            await _create(platform.acme, file)
    job = await _create(platform.acme, file)
    assert job.status == "validating_files"
    assert list(platform.reservations.open) == [job.id]
    assert await _create(platform.acme, file) == job


def _request(file: str) -> JobRequest:
    return JobRequest(model="small-model", training_file=file)


async def test_a_creator_that_died_frees_its_key(stack: FinetuneStack, monkeypatch: pytest.MonkeyPatch) -> None:
    file = await stack.upload(principal(), rows(20))
    dead = HeldUp(stack.reservations)

    async def tell_nobody(*_arguments: object) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(stack.reservations, "reserve", dead.reserve)
        patch.setattr(stack.jobs, "update", tell_nobody)
        dying = asyncio.create_task(stack.creation.create(principal(), _request(file), KEY))
        await dead.reached.wait()
        dying.cancel()
        await asyncio.wait([dying])
    with pytest.raises(Conflict) as refused:
        await stack.new_creation(earlier_wait_s=0.2).create(principal(), _request(file), KEY)
    assert refused.value.headers["retry-after"]
    stack.clock.advance(61)
    await stack.round()
    job = await stack.creation.create(principal(), _request(file), KEY)
    assert job.state is JobState.VALIDATING
    assert list(stack.reservations.open) == [job.id]


async def test_sql_takes_a_key_once(stack: FinetuneStack) -> None:
    job = await stack.creation.create(principal(), _request(await stack.upload(principal(), rows(20))), KEY)
    async with stack.database.reading() as session:
        row = await session.get_one(JobRow, job.id)
        columns = {column.key: getattr(row, column.key) for column in JobRow.__table__.columns}
    with pytest.raises(IntegrityError):
        async with stack.database.transaction() as session:
            session.add(JobRow(**{**columns, "id": new_job_id()}))


async def test_who_was_not_covered_meanwhile_is_told_so_himself(stack: FinetuneStack) -> None:
    stack.reservations.wallet = 1
    file = await stack.upload(principal(), rows(20))
    ends = await asyncio.gather(
        *(stack.creation.create(principal(), _request(file), KEY) for _ in range(3)), return_exceptions=True
    )
    assert {type(end) for end in ends} <= {QuotaExceeded, Conflict}
    assert QuotaExceeded in {type(end) for end in ends}
    assert stack.reservations.open == {}


async def test_a_wallet_that_is_in_use_leaves_no_job_behind(stack: FinetuneStack) -> None:
    """Clients try again every second: each time would add a failed job, and a charge of nothing."""
    file = await stack.upload(principal(), rows(20))
    stack.reservations.in_use = stack.reservations.wallet
    with pytest.raises(BudgetInUse):
        await stack.creation.create(principal(), _request(file), KEY)
    assert await stack.jobs.page(principal().organization, limit=9, after=None, metadata=None) == []
    stack.reservations.in_use = 0
    job = await stack.creation.create(principal(), _request(file), KEY)
    assert list(stack.reservations.open) == [job.id]
