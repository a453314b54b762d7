"""No statement, no wait for a lock and no silent holder of a lock lasts for ever; each has its own limit."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from tokenyard.storage.database import Database
from tokenyard.storage.outage import DatabaseDown
from tokenyard.storage.read_cache import DATABASE_DOWN
from tokenyard.storage.time_limits import MIGRATION_LIMITS, REQUEST_LIMITS, TimeLimits

postgres = pytest.mark.parametrize("database", ["postgres"], indirect=True)
TAKE = text("UPDATE tenancy_organizations SET weight = weight + 1 WHERE id = 'org_1'")
Opener = Callable[[TimeLimits], Database]


@pytest.fixture
async def opened(database: Database) -> AsyncIterator[Opener]:
    """Open the test's database once more, with other limits."""
    async with AsyncExitStack() as stack:

        def open_with(limits: TimeLimits) -> Database:
            another = Database(database.engine.url.render_as_string(hide_password=False), limits)
            stack.push_async_callback(another.close)
            return another

        yield open_with


@pytest.fixture
async def organization(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO tenancy_organizations"
                " (id, slug, name, default_project, weight, limits, created, revision, prices_from_ms, blocked_reason)"
                " VALUES ('org_1', 'acme', 'Acme', 'proj_1', 1, '{}', 1, 1, 0, '')"
            )
        )


@pytest.mark.usefixtures("organization")
async def test_who_waits_for_a_lock_is_told_so(database: Database, opened: Opener) -> None:
    hurried = opened(TimeLimits(lock_s=0.1))
    async with database.transaction() as holder:
        await holder.execute(TAKE)
        with pytest.raises(DatabaseDown):
            async with hurried.transaction() as session:
                await session.execute(TAKE)
    async with hurried.transaction() as session:
        await session.execute(TAKE)
    async with hurried.reading() as session:
        assert await session.scalar(text("SELECT weight FROM tenancy_organizations")) == 3


@postgres
async def test_a_statement_that_takes_too_long_is_ended(opened: Opener) -> None:
    hurried = opened(TimeLimits(statement_s=1))
    with pytest.raises(DatabaseDown):
        async with hurried.reading() as session:
            await session.execute(text("SELECT pg_sleep(60)"))
    async with hurried.reading() as session:
        assert await session.scalar(text("SELECT 1")) == 1


@postgres
async def test_a_report_says_how_long_it_may_take(opened: Opener) -> None:
    hurried = opened(TimeLimits(statement_s=0.1, command_margin_s=0.1))
    async with hurried.reading(statement_timeout_s=30) as session:
        assert await session.scalar(text("SELECT 1 FROM pg_sleep(0.5)")) == 1
        assert await session.scalar(text("SHOW statement_timeout")) == "30s"
    with pytest.raises(DatabaseDown):
        async with hurried.reading(statement_timeout_s=1) as session:
            await session.execute(text("SELECT pg_sleep(60)"))


@postgres
async def test_reports_that_overlap_leave_no_connection_open(database: Database) -> None:
    async def report(begun: asyncio.Event, end: asyncio.Event) -> None:
        async with database.reading(statement_timeout_s=29) as session:
            await session.execute(text("SELECT 1"))
            begun.set()
            await end.wait()

    for _ in range(3):
        events = [(asyncio.Event(), asyncio.Event()) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            for begun, end in events:
                group.create_task(report(begun, end))
                await begun.wait()
            for _, end in events:
                end.set()
                await asyncio.sleep(0.1)
    async with database.reading() as session:
        count = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        assert await session.scalar(count) == 1


async def test_every_database_takes_a_report_s_limit(database: Database) -> None:
    async with database.reading(statement_timeout_s=30) as session:
        assert await session.scalar(text("SELECT 1")) == 1


@postgres
@pytest.mark.usefixtures("organization")
async def test_of_two_that_wait_for_each_other_one_is_told_to_try_again(database: Database) -> None:
    lock, both = text("SELECT pg_advisory_xact_lock(1)"), asyncio.Barrier(2)

    async def writes(first: TextClause, second: TextClause) -> None:
        async with database.transaction() as session:
            await session.execute(first)
            await both.wait()
            await session.execute(second)

    ended = await asyncio.gather(writes(lock, TAKE), writes(TAKE, lock), return_exceptions=True)
    assert sorted(map(type, ended), key=str) == [type(None), DatabaseDown]


@postgres
@pytest.mark.usefixtures("organization")
async def test_who_holds_a_lock_and_falls_silent_is_ended(database: Database, opened: Opener) -> None:
    silent = opened(TimeLimits(idle_in_transaction_s=1))

    async def hold() -> None:
        async with silent.transaction() as holder:
            await holder.execute(TAKE)
            async with database.transaction() as session:  # waits until the server has ended the other
                await session.execute(TAKE)

    with pytest.raises(DatabaseDown):
        await hold()
    async with silent.transaction() as session:
        await session.execute(TAKE)
    async with database.reading() as session:
        assert await session.scalar(text("SELECT weight FROM tenancy_organizations")) == 3, "the silent one's is undone"


@postgres
async def test_a_connection_that_the_server_closed_meanwhile_is_replaced(database: Database, opened: Opener) -> None:
    async with database.reading() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
    async with opened(REQUEST_LIMITS).reading() as session:
        assert await session.scalar(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
    async with database.reading() as session:
        assert await session.scalar(text("SELECT pg_backend_pid()")) != pid


@postgres
@pytest.mark.parametrize("limits", [REQUEST_LIMITS, MIGRATION_LIMITS], ids=["request", "migration"])
async def test_the_server_knows_the_limits(opened: Opener, limits: TimeLimits) -> None:
    async with opened(limits).reading() as session:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        known = [
            await session.scalar(text(f"SELECT setting::int FROM pg_settings WHERE name = '{name}'")) for name in names
        ]
    wanted = (limits.statement_s or 0, limits.lock_s, limits.idle_in_transaction_s)
    assert known == [seconds * 1000 for seconds in wanted]


@pytest.mark.usefixtures("organization")
async def test_what_the_database_refuses_is_no_outage(database: Database) -> None:
    mistakes: tuple[tuple[str, type[SQLAlchemyError]], ...] = (
        ("INSERT INTO tenancy_organizations SELECT * FROM tenancy_organizations", IntegrityError),
        ("SELECT nothing FROM tenancy_projects", SQLAlchemyError),
    )
    for statement, error in mistakes:
        with pytest.raises(error):
            async with database.transaction() as session:
                await session.execute(text(statement))


@pytest.mark.usefixtures("organization")
async def test_who_is_cancelled_while_waiting_is_cancelled(opened: Opener, database: Database) -> None:
    another = opened(TimeLimits(lock_s=0.5))
    async with database.transaction() as holder:
        await holder.execute(TAKE)

        async def wait() -> None:
            async with another.transaction() as session:
                await session.execute(TAKE)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_nobody_listens() -> None:
    nobody = Database("postgresql+asyncpg://nobody:nothing@127.0.0.1:1/none")
    for connect in (nobody.reading, nobody.transaction):
        with pytest.raises(DATABASE_DOWN) as down:
            async with connect():
                raise AssertionError("connected")
        assert isinstance(down.value, DatabaseDown)
        assert down.value.headers["retry-after"]
    await nobody.close()
