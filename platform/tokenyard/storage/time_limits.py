"""How long anything in SQL may take: a lost host or a hung server must not hold up the others for ever."""

from dataclasses import dataclass

STATEMENT_S = 30.0
LOCK_S = 10.0
# No longer than a worker's lease of its buckets: who takes over from a lost worker must not wait for its row locks.
IDLE_IN_TRANSACTION_S = 15.0
CONNECT_S = 10.0
# The server ends a statement first; the driver ends only one of a server that is gone or hangs.
COMMAND_MARGIN_S = 5.0

# A client's host that is gone is noticed within a minute, also where its connection holds nothing.
KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_PROBES = 3
UNACKNOWLEDGED_MS = 30_000

MIGRATION_LOCK_S = 5.0
MIGRATION_IDLE_S = 60.0


@dataclass(frozen=True)
class TimeLimits:
    """`statement_s` None is without limit; `connect_s` counts for the pool and for the server, one after the other.

    SQLite, which is a file of this machine, knows only `lock_s`.
    """

    statement_s: float | None = STATEMENT_S
    lock_s: float = LOCK_S
    idle_in_transaction_s: float = IDLE_IN_TRANSACTION_S
    connect_s: float = CONNECT_S
    command_margin_s: float = COMMAND_MARGIN_S

    def postgres_arguments(self) -> dict[str, object]:
        """Return what asyncpg's `connect` takes."""
        settings = {
            "statement_timeout": _ms(self.statement_s or 0),
            "lock_timeout": _ms(self.lock_s),
            "idle_in_transaction_session_timeout": _ms(self.idle_in_transaction_s),
            "tcp_keepalives_idle": KEEPALIVE_IDLE_S,
            "tcp_keepalives_interval": KEEPALIVE_INTERVAL_S,
            "tcp_keepalives_count": KEEPALIVE_PROBES,
            "tcp_user_timeout": UNACKNOWLEDGED_MS,
        }
        return {
            "timeout": self.connect_s,
            "command_timeout": None if self.statement_s is None else self.statement_s + self.command_margin_s,
            "server_settings": {name: str(value) for name, value in settings.items()},
        }


REQUEST_LIMITS = TimeLimits()
MIGRATION_LIMITS = TimeLimits(
    # Rewriting a large table takes as long as it takes.
    statement_s=None,
    # A change of a table waits for every transaction that uses it, and whoever comes later waits behind the change:
    # one long report and a patient migration would stop everybody. So it gives up, sooner than those behind it
    # (LOCK_S), and is started again.
    lock_s=MIGRATION_LOCK_S,
    idle_in_transaction_s=MIGRATION_IDLE_S,
)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
