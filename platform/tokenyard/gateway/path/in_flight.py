"""What one process has under way: requests and what has come of their bodies, of one organization and of all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId

MIB = 1024 * 1024


@dataclass(frozen=True)
class InFlightBounds:
    """`requests` counts those whose key is not known yet, too; a body's bytes count until its request has ended."""

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
    """Raises for who has too much under way.

    One organization may have no more than is free, too, so that a few of them together leave some to the next.
    """

    def __init__(self, bounds: InFlightBounds) -> None:
        self._bounds = bounds
        self._amounts: dict[OrganizationId, _Amount] = {}
        self.requests = 0
        self.bytes = 0

    @property
    def organizations(self) -> int:
        """How many have something under way."""
        return len(self._amounts)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one more among `requests`."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    def check_room(self) -> None:
        """Raise `Unavailable` where `requests` are too many, with the one that asks."""
        if self.requests > self._bounds.requests:
            raise _overloaded()

    def place(self, organization: OrganizationId) -> "Place":
        """Return a context in which a request, already among `requests`, counts for its organization.

        Raises:
            RateLimited: the organization has too much under way.
        """
        own = self._amounts.get(organization) or _Amount()
        free = self._bounds.requests - self.requests + 1
        if own.requests >= min(self._bounds.requests_of_one, free):
            raise _too_many(organization)
        return Place(self, organization, own)

    def check_bytes(self, organization: OrganizationId, own: _Amount, more: int) -> None:
        free = self._bounds.bytes - self.bytes
        if more > free:
            raise _overloaded()
        if more and own.bytes + more > min(self._bounds.bytes_of_one, free):
            raise _too_many(organization)

    def count(self, organization: OrganizationId, own: _Amount, requests: int, body_bytes: int) -> None:
        own.requests += requests
        own.bytes += body_bytes
        self.bytes += body_bytes
        if own.requests:
            self._amounts[organization] = own
        else:
            del self._amounts[organization]


class Place:
    """One request's part of what is under way. What comes after its end is the last of a reply and counts no more."""

    __slots__ = ("_bytes", "_ended", "_in_flight", "_organization", "_own", "_passed_on")

    def __init__(self, in_flight: InFlight, organization: OrganizationId, own: _Amount) -> None:
        self._in_flight = in_flight
        self._organization = organization
        self._own = own
        self._bytes = 0
        self._ended = False
        self._passed_on = False

    def __enter__(self) -> Self:
        self._in_flight.count(self._organization, self._own, 1, 0)
        return self

    def __exit__(self, *_raised: object) -> None:
        if self._passed_on:
            self._passed_on = False
            return
        self._ended = True
        self._in_flight.count(self._organization, self._own, -1, -self._bytes)

    def pass_on(self) -> Self:
        """Return it for one that ends it, by another `__exit__`, in place of the `with` that it stands in."""
        self._passed_on = True
        return self

    def came(self, body_bytes: int) -> None:
        """So much more of the body has come.

        Raises:
            RateLimited: the organization has too much under way.
            Unavailable: all of them together have.
        """
        if self._ended:
            return
        self._in_flight.check_bytes(self._organization, self._own, body_bytes)
        self._in_flight.count(self._organization, self._own, 0, body_bytes)
        self._bytes += body_bytes

    def has_room(self, reply_bytes: int) -> bool:
        """Count so much more that is kept of the reply, where there is room for it."""
        try:
            self.came(reply_bytes)
        except (RateLimited, Unavailable):
            return False
        return True


def _too_many(organization: OrganizationId) -> RateLimited:
    return RateLimited(
        f"Too many requests of organization {organization} are under way at once. Please try again shortly."
    )


def _overloaded() -> Unavailable:
    return Unavailable("The server is overloaded. Please try again shortly.")
