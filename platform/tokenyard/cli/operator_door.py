"""How a command comes by an operator's key: it is given one, or makes one for a while where the database is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenyard.settings import Settings


class NoDatabase(Exception):
    """The installation's database cannot be used from here; the message says why."""


@asynccontextmanager
async def operator_key(given: str | None, settings: Settings) -> AsyncIterator[str | None]:
    """Yield `given`; else a key of our own that ends with this block; None where this is not the operator's machine.

    Raises:
        NoDatabase: the secret is here, but the database does not answer or was never set up.
    """
    if given or not settings.secret.get_secret_value():
        yield given
        return
    # Loaded only here: with a given key a command starts in half the time.
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from tokenyard.bootstrap.operator_key import session_key  # noqa: PLC0415

    session = session_key(settings)
    try:
        key = await session.__aenter__()
    except (SQLAlchemyError, OSError) as error:
        raise NoDatabase(
            f"The database cannot be used ({type(error).__name__}). Start the platform once with `tokenyard up`,"
            " or give an admin key."
        ) from error
    try:
        yield key
    finally:
        await session.__aexit__(None, None, None)
