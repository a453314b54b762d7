"""Answers in SQLite and in PostgreSQL: their time, their room, their conversations, and SQL that is away."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from cryptography.exceptions import InvalidTag
from sqlalchemy import text

from support.answers_stand import CIPHER, RETENTION_MS, answer_keeper, answer_store
from support.fakes.clock import FrozenClock
from support.gateway_stack import until
from tokenyard.core.errors import InvalidRequest, NotFound, QuotaExceeded, RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.gateway.endpoints.answer import KeptAnswer
from tokenyard.responses import conversations, keeper
from tokenyard.responses.content import Content, ContentCipher
from tokenyard.responses.loops import answer_loops
from tokenyard.responses.operator_store import AnswerOperatorStore
from tokenyard.responses.store import LEASE_MS, AnswerKind, AnswerStore
from tokenyard.storage.database import Database
from tokenyard.storage.time_limits import TimeLimits

ACME, PROJECT = OrganizationId("org_acme"), ProjectId("proj_1")
OWNER = ACME, PROJECT
OTHERS = [(OrganizationId("org_rival"), PROJECT), (ACME, ProjectId("proj_2"))]
KIND = AnswerKind.RESPONSE


def _free(_size: int) -> None:
    """There is always room."""


def answer(number: int, *, previous: int | None = None, words: str = "said", state: str = "completed") -> KeptAnswer:
    """Return a response of one item in and one out."""
    made = _id(number)
    return KeptAnswer(
        kind="response",
        id=made,
        model="test-model",
        state=state,
        metadata={},
        input=[{"id": f"msg_{made[5:]}i0", "type": "message", "role": "user", "content": f"asked {number}"}],
        output={"output": [{"id": f"msg_{made[5:]}o0", "type": "message", "content": f"{words} {number}"}]},
        previous=None if previous is None else _id(previous),
    )


def _id(number: int) -> str:
    return f"resp_{number:032x}"


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def store(database: Database, clock: FrozenClock) -> AnswerStore:
    return answer_store(database, clock)


@pytest.fixture
async def kept(database: Database, clock: FrozenClock) -> AsyncIterator[keeper.AnswerKeeper]:
    async with answer_keeper(database, clock) as opened:
        yield opened


async def test_an_answer_written_twice_is_one(kept: keeper.AnswerKeeper, store: AnswerStore) -> None:
    await kept.keep(*OWNER, answer(1))
    used = await store.used_bytes(ACME)
    await kept.keep(*OWNER, answer(1, words="something else"))
    assert await store.used_bytes(ACME) == used > 0
    found = await store.get(*OWNER, KIND, _id(1))
    assert (found.input, found.output) == (answer(1).input, answer(1).output)


@pytest.mark.parametrize("owner", OTHERS)
async def test_others_find_nothing(
    kept: keeper.AnswerKeeper, store: AnswerStore, owner: tuple[OrganizationId, ProjectId]
) -> None:
    await kept.keep(*OWNER, answer(1))
    with pytest.raises(NotFound):
        await store.get(*owner, KIND, _id(1))
    with pytest.raises(NotFound):
        await store.delete(*owner, KIND, _id(1))
    with pytest.raises(NotFound):
        await store.get(*OWNER, AnswerKind.CHAT, _id(1))
    with pytest.raises(InvalidRequest):
        await kept.conversation(*owner, _id(1), _free)
    with pytest.raises(InvalidRequest):
        await kept.items(*owner, {f"msg_{1:032x}o0": _id(1)}, _free)
    await store.get(*OWNER, KIND, _id(1))


async def test_nobody_reads_a_copy_of_the_database(
    kept: keeper.AnswerKeeper, store: AnswerStore, database: Database
) -> None:
    await kept.keep(*OWNER, answer(1, words="a secret"))
    await kept.keep(*OWNER, answer(2))
    async with database.reading() as session:
        stored = (await session.execute(text("SELECT content FROM responses_answers ORDER BY id"))).scalars().all()
    assert b"secret" not in stored[0]
    assert CIPHER.decrypt(_id(1), stored[0]) == Content(answer(1).input, answer(1, words="a secret").output)
    with pytest.raises(InvalidTag):
        CIPHER.decrypt(_id(2), stored[0])  # an answer moved under another's id
    rotated = ContentCipher([b"new" + bytes(29), bytes(32)])
    assert rotated.decrypt(_id(2), stored[1]) == CIPHER.decrypt(_id(2), stored[1])


async def test_a_conversation_is_read_from_its_beginning(kept: keeper.AnswerKeeper) -> None:
    for number in range(1, 5):
        await kept.keep(*OWNER, answer(number, previous=number - 1 or None))
    await kept.keep(*OWNER, answer(9, previous=2))  # another branch
    came: list[int] = []
    items = await kept.conversation(*OWNER, _id(4), came.append)
    assert [item["content"] for item in items] == [
        f"{who} {number}" for number in range(1, 5) for who in ("asked", "said")
    ]
    assert sum(came) > 0
    branch = await kept.conversation(*OWNER, _id(9), _free)
    assert [item["content"] for item in branch][-2:] == ["asked 9", "said 9"]
    assert len(branch) == 6


async def test_a_conversation_with_a_gap_is_none(kept: keeper.AnswerKeeper, store: AnswerStore) -> None:
    for number in range(1, 4):
        await kept.keep(*OWNER, answer(number, previous=number - 1 or None))
    await store.delete(*OWNER, KIND, _id(1))
    with pytest.raises(InvalidRequest, match=_id(1)) as refused:
        await kept.conversation(*OWNER, _id(3), _free)
    assert refused.value.code == "previous_response_not_found"


async def test_a_conversation_has_bounds(kept: keeper.AnswerKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 5):
        await kept.keep(*OWNER, answer(number, previous=number - 1 or None))

    def full(_size: int) -> None:
        raise RateLimited("too much")

    with pytest.raises(RateLimited):
        await kept.conversation(*OWNER, _id(4), full)
    monkeypatch.setattr(conversations, "MAX_RESPONSES", 3)
    await kept.conversation(*OWNER, _id(3), _free)
    with pytest.raises(InvalidRequest, match="more than 3 responses"):
        await kept.conversation(*OWNER, _id(4), _free)
    monkeypatch.setattr(conversations, "MAX_BYTES", 100)
    with pytest.raises(InvalidRequest, match="more than 100 bytes"):
        await kept.conversation(*OWNER, _id(1), _free)
    with pytest.raises(InvalidRequest, match="more than 100 bytes"):
        await kept.items(*OWNER, {f"msg_{1:032x}o0": _id(1)}, _free)


async def test_what_is_over_is_gone_at_once_and_deleted_soon(
    kept: keeper.AnswerKeeper, store: AnswerStore, database: Database, clock: FrozenClock
) -> None:
    for number in range(3):
        await kept.keep(*OWNER, answer(number))
    clock.advance(RETENTION_MS / 1000 - 1)
    expired = AnswerOperatorStore(database, clock, retention_ms=RETENTION_MS)
    assert await expired.delete_expired(limit=10) == 0
    await store.get(*OWNER, KIND, _id(1))
    clock.advance(1)
    with pytest.raises(NotFound):
        await store.get(*OWNER, KIND, _id(1))
    with pytest.raises(InvalidRequest):
        await kept.conversation(*OWNER, _id(1), _free)
    assert await expired.delete_expired(limit=2) == 2
    for loop in answer_loops(expired):
        await loop.step()
    assert await store.used_bytes(ACME) == 0


async def test_a_full_organization_is_told_so(database: Database, clock: FrozenClock) -> None:
    async with answer_keeper(database, clock, quota_bytes=1000) as first:
        await first.check_room(ACME)
        await first.keep(*OWNER, answer(1, words="x" * 1000))
    async with answer_keeper(database, clock, quota_bytes=1000) as second:
        with pytest.raises(QuotaExceeded) as refused:
            await second.check_room(ACME)
        assert refused.value.code == "storage_quota_exceeded"
        await second.check_room(OrganizationId("org_rival"))


async def test_what_sql_does_not_take_is_written_later(
    database: Database, clock: FrozenClock, store: AnswerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "WAIT_LIMIT_S", 0.3)
    monkeypatch.setattr(keeper, "RETRY_S", 0.05)
    hurried = Database(database.engine.url.render_as_string(hide_password=False), TimeLimits(lock_s=0.1))
    async with answer_keeper(hurried, clock) as waiting:
        async with database.transaction() as holder:
            await holder.execute(text(_lock(database)))
            await waiting.keep(*OWNER, answer(1))
            monkeypatch.setattr(keeper, "MAX_UNWRITTEN_BYTES", 10)
            with pytest.raises(Unavailable):
                await waiting.check_room(ACME)
            with pytest.raises(NotFound):
                await store.get(*OWNER, KIND, _id(1))
        await until(lambda: _has(store, 1))
        await waiting.check_room(ACME)
    await hurried.close()


async def test_a_process_that_ends_writes_what_it_has(
    database: Database, clock: FrozenClock, store: AnswerStore
) -> None:
    async with answer_keeper(database, clock) as ending:
        leaving = asyncio.create_task(ending.keep(*OWNER, answer(1)))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait({leaving})
    assert await _has(store, 1)


def _lock(database: Database) -> str:
    """Return a statement that lets nobody else write; with SQLite any statement of a transaction does."""
    return "SELECT 1" if database.is_sqlite else "LOCK TABLE responses_answers IN EXCLUSIVE MODE"


async def _has(store: AnswerStore, number: int) -> bool:
    return await store.used_bytes(ACME) > 0 and bool((await store.get(*OWNER, KIND, _id(number))).output)


def _begun(number: int, *, state: str = "queued") -> KeptAnswer:
    return msgspec.structs.replace(answer(number), state=state, background=True)


async def test_what_a_lost_process_was_making_fails_after_its_lease(
    kept: keeper.AnswerKeeper, store: AnswerStore, database: Database, clock: FrozenClock
) -> None:
    leases = AnswerOperatorStore(database, clock, retention_ms=RETENTION_MS)
    for number in (1, 2):
        await kept.begin(*OWNER, _begun(number))
    clock.advance(LEASE_MS / 1000)
    assert await kept.renew([_id(1)]) == {_id(1)}
    assert await leases.fail_lost() == []
    clock.advance(0.001)
    assert await leases.fail_lost() == [_id(2)]
    assert [(await store.get(*OWNER, KIND, _id(number))).state for number in (1, 2)] == ["in_progress", "failed"]
    assert await kept.renew([_id(1), _id(2)]) == {_id(1)}
    for number in (1, 2):  # the process was only slow: what it has comes too late
        await kept.keep(*OWNER, _begun(number, state="completed"))
    assert [(await store.get(*OWNER, KIND, _id(number))).state for number in (1, 2)] == ["completed", "failed"]
    clock.advance(LEASE_MS)
    assert await leases.fail_lost() == []


async def test_a_cancelled_answer_stays_cancelled(kept: keeper.AnswerKeeper, store: AnswerStore) -> None:
    begun = msgspec.structs.replace(_begun(1), output={"output": [], "background": True})
    await kept.begin(*OWNER, begun)
    for owner in OTHERS:
        with pytest.raises(NotFound):
            await store.cancel(*owner, _id(1))
    assert (await store.cancel(*OWNER, _id(1))).state == "cancelled"
    assert await kept.renew([_id(1)]) == set()
    await kept.keep(*OWNER, _begun(1, state="completed"))
    assert (await store.get(*OWNER, KIND, _id(1))).state == "cancelled"
    await store.delete(*OWNER, KIND, _id(1))
    await kept.keep(*OWNER, _begun(1, state="completed"))
    assert await store.used_bytes(ACME) == 0
