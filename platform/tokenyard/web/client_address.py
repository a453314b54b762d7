"""Which address a client has, also behind proxies that are trusted to say so."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import Scope

IPV6_PREFIX = 64  # a single customer is given that much, and may use every address of it
KNOWN_ADDRESSES = 4096


def address_of(scope: Scope) -> str:
    """Return the client's address as the server found it; "" where there is none, as on a Unix socket."""
    client = scope.get("client")
    return client[0] if client else ""


def network_of(address: str) -> str:
    """Return what bounds count by: an IPv4 address, the /64 of an IPv6 one, and any other text as it is."""
    return _network_of(address) if ":" in address else address


@lru_cache(KNOWN_ADDRESSES)
def _network_of(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        return text
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address, IPV6_PREFIX), strict=False))


class Networks:
    """Addresses and networks, which are asked whether they hold an address."""

    def __init__(self, members: Iterable[str]) -> None:
        """Take addresses and networks, such as `10.0.0.0/8`; one that is neither raises `ValueError`."""
        self._members = tuple(ip_network(one) for one in members)

    def __bool__(self) -> bool:
        return bool(self._members)

    def __contains__(self, address: str) -> bool:
        found = _parsed(address)
        return found is not None and any(found in member for member in self._members)


@lru_cache(KNOWN_ADDRESSES)
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


class TrustedProxies:
    """The addresses and networks whose `X-Forwarded-For` is believed."""

    def __init__(self, trusted: Iterable[str]) -> None:
        """Take addresses and networks, such as `10.0.0.0/8`; one that is neither raises `ValueError`."""
        self._networks = Networks(trusted)
        self._trusts = lru_cache(KNOWN_ADDRESSES)(self._networks.__contains__)

    def trust(self, address: str) -> bool:
        return bool(self._networks) and self._trusts(address)

    def client(self, peer: str, forwarded: str) -> str:
        """Return who is behind the trusted proxy `peer`: the last of `forwarded` that is no trusted proxy itself.

        What stands before that one is the client's own word, and may be made up.
        """
        for address in map(str.strip, reversed(forwarded.split(","))):
            if address and not self._trusts(address):
                return address
        return peer
