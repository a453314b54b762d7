"""A PostgreSQL database that holds nothing."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine


async def empty_postgres(url: str) -> str:
    """Drop everything in the database; return its URL."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await engine.dispose()
    return url
