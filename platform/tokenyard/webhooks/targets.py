"""Which addresses webhooks may go to: the internet's, and no server of the operator's own networks."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from yarl import URL

from tokenyard.core.errors import InvalidRequest

MAX_URL = 2048
_NAT64 = ip_network("64:ff9b::/96")
# What Python takes for global, and is not, or leads to a cloud's own services, or into IPv4 in a disguise.
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            *("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24"),
            *("::/96", "64:ff9b:1::/48", "2001::/23", "2002::/16", "fec0::/10"),
        ),
    )
)


class WebhookTargets:
    """`networks` (CIDR) may be called although they are not public; `plain_http` lets URLs go without TLS."""

    def __init__(self, networks: Iterable[str] = (), *, plain_http: bool = False) -> None:
        self._networks = tuple(ip_network(network) for network in networks)
        self._schemes = ("https", "http") if plain_http else ("https",)

    def check_url(self, url: str) -> None:
        """Raise `InvalidRequest` for what is no URL to send to; whither a name leads is seen only when it is used."""
        try:
            parsed = URL(url)
            host = parsed.host  # a name in Punycode is read only here
        except ValueError:
            raise _refused("This is not a URL.") from None
        if parsed.scheme not in self._schemes or not host:
            raise _refused(f"A webhook's URL begins with {' or '.join(f'{one}://' for one in self._schemes)}.")
        if parsed.user is not None or parsed.password is not None or parsed.fragment:
            raise _refused("A webhook's URL has no user, password or fragment.")
        try:
            literal = str(ip_address(host))
        except ValueError:
            return
        if not self.allows(literal):
            raise _refused("Webhooks are not sent to this address.")

    def allows(self, address: str) -> bool:
        """Tell whether webhooks may go to an IP address."""
        real = _unwrapped(ip_address(address))
        if any(real in network for network in self._networks):
            return True
        return real.is_global and not real.is_multicast and not any(real in network for network in _NOT_PUBLIC)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that one of IPv6 stands for, where it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(why, param="url")
