"""Transactions that fail: what they say holds nothing that a tenant sent, and what they held is free again."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError

from tokenyard.storage.database import Database


async def test_errors_do_not_show_parameters(database: Database) -> None:
    with pytest.raises(SQLAlchemyError) as failed:
        async with database.reading() as session:
            await session.execute(text("SELECT nothing FROM nowhere WHERE a = :secret"), {"secret": "canary"})
    assert "canary" not in str(failed.value)


async def test_who_leaves_while_it_writes_holds_nobody_up(database: Database) -> None:
    """A client that hangs up cancels its request wherever it is: here amid a statement of its transaction."""
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE notes (number INTEGER)"))

    async def write_and_leave() -> None:
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES (1), (2)"))
            event.listen(database.engine.sync_engine, "before_cursor_execute", leave, once=True)
            await session.execute(text("SELECT number FROM notes"))

    def leave(*_arguments: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    left = await asyncio.gather(asyncio.create_task(write_and_leave()), return_exceptions=True)
    assert isinstance(left[0], asyncio.CancelledError)  # whoever keeps it keeps the cursor of its last statement
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO notes VALUES (3)"))
    async with database.reading() as session:
        assert (await session.execute(text("SELECT number FROM notes"))).scalars().all() == [3]
