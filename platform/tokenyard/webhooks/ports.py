"""What webhooks need from others."""

from collections.abc import Awaitable, Callable

from tokenyard.core.ids import OrganizationId

OrganizationFinder = Callable[[str], Awaitable[OrganizationId]]
"""Returns the id of the organization with an id or slug; raises `NotFound` (tenancy)."""
