"""What one process has under way: requests and their bodies, of one organization and of all, from the key onwards."""

from dataclasses import dataclass
from typing import Self

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId

MIB = 1024 * 1024


@dataclass(frozen=True)
class InFlightBounds:
    """`requests` counts those whose key is not known yet, too; a body counts until its request has ended."""

    requests: int = 4096
    requests_of_one: int = 1024
    bytes: int = 128 * MIB
    bytes_of_one: int = 32 * MIB


class _Amount:
    __slots__ = ("bytes", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0


class InFlight:
    """Raises for who has too much under way, before any of a body is read."""

    def __init__(self, bounds: InFlightBounds) -> None:
        self._bounds = bounds
        self._all = _Amount()
        self._amounts: dict[OrganizationId, _Amount] = {}

    @property
    def organizations(self) -> int:
        """How many have something under way."""
        return len(self._amounts)

    def place(self, organization: OrganizationId, body_bytes: int) -> "Place":
        """Return a context in which a request and its body count.

        Raises:
            RateLimited: the organization has too much under way.
            Unavailable: all of them together have.
        """
        bounds, own = self._bounds, self._amounts.get(organization) or _Amount()
        if own.requests >= bounds.requests_of_one or own.bytes + body_bytes > bounds.bytes_of_one:
            raise RateLimited(
                f"Too many requests of organization {organization} are under way at once. Please try again shortly.",
                headers={"retry-after": "1"},
            )
        if self._all.bytes + body_bytes > bounds.bytes:
            raise Unavailable("The server is overloaded. Please try again shortly.")
        return Place(self, organization, own, body_bytes)

    def count(self, organization: OrganizationId, own: _Amount, requests: int, body_bytes: int) -> None:
        own.requests += requests
        own.bytes += body_bytes
        self._all.bytes += body_bytes
        if own.requests:
            self._amounts[organization] = own
        else:
            del self._amounts[organization]


class Place:
    """One request's part of what is under way."""

    __slots__ = ("_bytes", "_in_flight", "_organization", "_own")

    def __init__(self, in_flight: InFlight, organization: OrganizationId, own: _Amount, body_bytes: int) -> None:
        self._in_flight = in_flight
        self._organization = organization
        self._own = own
        self._bytes = body_bytes

    def __enter__(self) -> Self:
        self._in_flight.count(self._organization, self._own, 1, self._bytes)
        return self

    def __exit__(self, *_raised: object) -> None:
        self._in_flight.count(self._organization, self._own, -1, -self._bytes)

    def body_has(self, body_bytes: int) -> None:
        """The body has come, and is no longer than this."""
        if body_bytes != self._bytes:
            self._in_flight.count(self._organization, self._own, 0, body_bytes - self._bytes)
            self._bytes = body_bytes
