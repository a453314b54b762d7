"""Whose request it is, also behind proxies; a client cannot choose what it is counted by."""

import pytest

from tokenyard.web.client_address import Networks, TrustedProxies, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("not:an:address", "not:an:address"),
        ("", ""),
    ],
)
def test_what_bounds_count_by(address: str, network: str) -> None:
    assert network_of(address) == network


def test_nobody_is_trusted_unless_it_is_said() -> None:
    assert not TrustedProxies(()).trust("127.0.0.1")


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("198.51.100.7, 192.0.2.1", "192.0.2.1"),
        ("198.51.100.7,192.0.2.1 , 10.1.2.3", "192.0.2.1"),
        ("192.0.2.1, 2001:db8::1", "192.0.2.1"),
        ("10.1.2.3", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("unknown", "unknown"),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(forwarded: str, client: str) -> None:
    proxies = TrustedProxies(["10.0.0.0/8", "2001:db8::1"])
    assert proxies.trust("10.0.0.1")
    assert not proxies.trust("192.0.2.1")
    assert proxies.client("10.0.0.1", forwarded) == client


def test_a_setting_that_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="loadbalancer"):
        TrustedProxies(["loadbalancer"])


@pytest.mark.parametrize(
    ("address", "held"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("", False),
        ("/run/socket", False),
    ],
)
def test_networks_hold_addresses(address: str, held: bool) -> None:
    assert (address in Networks(["10.0.0.0/8", "2001:db8::/32"])) is held
    assert address not in Networks([])
