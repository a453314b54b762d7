"""Lets one transaction at a time decide something, on SQLite and PostgreSQL alike."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_TAKE = text(
    "INSERT INTO finetune_turns (name, turn) VALUES (:name, 1)"
    " ON CONFLICT (name) DO UPDATE SET turn = finetune_turns.turn + 1"
)


async def take_turn(session: AsyncSession, name: str) -> None:
    """Wait until no other transaction holds the turn `name`, and hold it until this one ends."""
    await session.execute(_TAKE, {"name": name})
