"""What the database says when it fails goes into logs, so it holds nothing that a tenant sent."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from tokenyard.storage.database import Database


async def test_errors_do_not_show_parameters(database: Database) -> None:
    with pytest.raises(SQLAlchemyError) as failed:
        async with database.reading() as session:
            await session.execute(text("SELECT nothing FROM nowhere WHERE a = :secret"), {"secret": "canary"})
    assert "canary" not in str(failed.value)
