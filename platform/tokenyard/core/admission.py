"""What the request path asks of admission, and what it gets."""

from collections.abc import Sequence

import msgspec

from tokenyard.core.budgets import Budget
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Principal
from tokenyard.core.usage import MeterClaims

_REQUESTS, _TOKENS = (
    (b"x-ratelimit-limit-%b" % kind, b"x-ratelimit-remaining-%b" % kind, b"x-ratelimit-reset-%b" % kind)
    for kind in (b"requests", b"tokens")
)


class PrincipalOutdated(Exception):
    """The caller's key, project or organization was changed since its `Principal` was looked up: look it up again."""


class AdmissionRequest(msgspec.Struct, frozen=True):
    """One client request, before it is let in.

    `claims` carries `admitted_at_ms=0` and no budgets: admission fills both in. `tokens` and `amount` are the worst
    case, held until the request is settled. `budgets` come from `core.budgets.budgets_of`.
    """

    principal: Principal
    claims: MeterClaims
    tokens: int
    amount: NanoDollars
    budgets: Sequence[Budget]


class RateWindow(msgspec.Struct, frozen=True):
    """The tightest rolling window of a kind; `reset_ms` is how long until all of `limit` is free again."""

    limit: int
    remaining: int
    reset_ms: int


class RateHeaders(msgspec.Struct, frozen=True):
    """What the reply tells about rate limits; None where there is no limit of that kind."""

    requests: RateWindow | None = None
    tokens: RateWindow | None = None

    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.raw_headers()}

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers as they are sent."""
        found: list[tuple[bytes, bytes]] = []
        for (limit, remaining, reset), window in ((_REQUESTS, self.requests), (_TOKENS, self.tokens)):
            if window is not None:
                found.append((limit, b"%d" % window.limit))
                found.append((remaining, b"%d" % window.remaining))
                found.append((reset, duration(window.reset_ms).encode()))
        return found


class Admitted(msgspec.Struct, frozen=True):
    """The request is in. `claims` are complete: sign these, and settle with these."""

    claims: MeterClaims
    rates: RateHeaders


def duration(milliseconds: int) -> str:
    """Write a duration as OpenAI does: `12ms`, `1.5s`, `6m0s`, `2h0m0s`."""
    if milliseconds < 1000:
        return f"{max(0, milliseconds)}ms"
    minutes, rest_ms = divmod(milliseconds, 60_000)
    if not minutes:
        return f"{rest_ms / 1000:g}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest_ms / 1000:g}s" if hours else f"{minutes}m{rest_ms / 1000:g}s"
