"""How Alembic connects."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from tokenyard.storage.database import Base, Database


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def _run(url: str) -> None:
    database = Database(url, context.config.attributes["limits"])
    try:
        async with database.engine.connect() as connection:
            await connection.execution_options(tokenyard_begin="BEGIN IMMEDIATE")
            await connection.run_sync(_migrate)
            await connection.commit()
    finally:
        await database.close()


url = context.config.get_main_option("sqlalchemy.url")
assert url, "migrate.alembic_config sets the URL"
asyncio.run(_run(url))
