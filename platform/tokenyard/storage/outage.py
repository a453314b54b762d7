"""Tells a database that does not answer from one that refuses what it was asked."""

import logging
import sqlite3

from sqlalchemy.engine import ExceptionContext

from tokenyard.core.errors import Unavailable

RETRY_AFTER_S = 2.0
# Connection lost; too many connections, disk full; ended by a time limit or an operator; waited too long for a lock, or
# for one whose holder waited for it.
_POSTGRES_STATES = ("08", "53", "57", "55P03", "40P01")
_SQLITE_CODES = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM),
}

_LOG = logging.getLogger(__name__)


class DatabaseDown(Unavailable):
    """SQL does not answer, or not in time. Of a commit that was under way nobody knows whether it is done."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(
            "The service cannot reach its records right now. Please try again.", retry_after_s=RETRY_AFTER_S
        )
        state = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or ""
        _LOG.warning("the database does not answer: %s %s", type(cause).__name__, state)


def raise_outage(context: ExceptionContext) -> None:
    """Handle SQLAlchemy's event `handle_error`: raise `DatabaseDown` in place of any error that means just that."""
    error = context.original_exception
    if context.is_pre_ping or not isinstance(error, Exception):  # the pool connects anew; a cancellation stays one
        return
    if isinstance(error, OSError):  # the driver's time limit too: what comes later on this connection is not for us
        context.is_disconnect = True
    if context.is_disconnect or _is_outage(error):
        raise DatabaseDown(error) from error


def _is_outage(error: Exception) -> bool:
    if str(getattr(error, "sqlstate", None) or "").startswith(_POSTGRES_STATES):
        return True
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_CODES
