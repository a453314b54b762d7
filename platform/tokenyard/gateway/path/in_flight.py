"""What one process has under way: requests and their bodies, of one organization and of all, from the key onwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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


class InFlight:
    """Raises for who has too much under way, before any of a body is read."""

    def __init__(self, bounds: InFlightBounds) -> None:
        self._bounds = bounds
        self._all = _Amount()
        self._amounts: dict[OrganizationId, _Amount] = {}

    @contextmanager
    def place(self, organization: OrganizationId, body_bytes: int) -> Iterator["Place"]:
        """Count a request and its body while the context is open.

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
        self._amounts[organization] = own
        place = Place((own, self._all), body_bytes)
        try:
            yield place
        finally:
            place.leave()
            if not own.requests:
                del self._amounts[organization]


class _Amount:
    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0


class Place:
    """One request's part of what is under way."""

    def __init__(self, amounts: tuple[_Amount, ...], body_bytes: int) -> None:
        self._amounts = amounts
        self._bytes = 0
        self._change(1, body_bytes)

    def body_has(self, body_bytes: int) -> None:
        """The body has come, and is no longer than this."""
        self._change(0, body_bytes - self._bytes)

    def leave(self) -> None:
        self._change(-1, -self._bytes)

    def _change(self, requests: int, body_bytes: int) -> None:
        self._bytes += body_bytes
        for amount in self._amounts:
            amount.requests += requests
            amount.bytes += body_bytes
