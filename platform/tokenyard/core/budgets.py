"""Budget names. A budget is what a request must be held on: a wallet, or a month's spending limit."""

from datetime import UTC, datetime

from tokenyard.core.ids import OrganizationId
from tokenyard.core.principal import Principal


def wallet(organization: OrganizationId) -> str:
    """Return the name of the organization's prepaid balance."""
    return f"wallet:{organization}"


def monthly(scope: str, at_ms: int) -> str:
    """Return the name of a month's limit of `scope` (an organization, project or key id).

    `at_ms` is unix milliseconds; the month is counted in UTC.
    """
    return f"month:{scope}:{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m}"


def budgets_of(principal: Principal, at_ms: int) -> tuple[str, ...]:
    """Return every budget that a request of `principal` must be held on: the wallet, and each monthly limit."""
    limited = (scope.id for scope in principal.limits if scope.limits.monthly_spend is not None)
    return (wallet(principal.organization), *(monthly(scope, at_ms) for scope in limited))
