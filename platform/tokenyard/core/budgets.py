"""Budget names. A budget is what a request must be held on: a wallet, or a month's spending limit."""

from datetime import UTC, datetime

from tokenyard.core.ids import OrganizationId


def wallet(organization: OrganizationId) -> str:
    """Return the name of the organization's prepaid balance."""
    return f"wallet:{organization}"


def monthly(scope: str, at_ms: int) -> str:
    """Return the name of a month's limit of `scope` (an organization, project or key id).

    `at_ms` is unix milliseconds; the month is counted in UTC.
    """
    return f"month:{scope}:{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m}"
