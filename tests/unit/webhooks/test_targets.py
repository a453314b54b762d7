"""Which addresses webhooks may go to."""

import pytest

from tokenyard.core.errors import InvalidRequest
from tokenyard.webhooks.targets import WebhookTargets

NOT_PUBLIC = (
    *("0.0.0.0", "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
    *("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.88.99.1", "198.18.0.1"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "203.0.113.9"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1"),
    *("2002:7f00:1::", "2001:0:7f00:1::", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1"),
    *("ff02::1", "100::1", "2001:db8::1"),
)
PUBLIC = ("1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1")


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not WebhookTargets().allows(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str) -> None:
    assert WebhookTargets().allows(address)


def test_an_operator_may_allow_networks() -> None:
    targets = WebhookTargets(["10.1.0.0/16", "fd00::/8"])
    allowed = ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00::7", "1.1.1.1")
    assert all(map(targets.allows, allowed))
    assert not any(map(targets.allows, ("10.2.0.1", "127.0.0.1", "fe80::1")))


@pytest.mark.parametrize("url", ["http://example.com/", "HTTP://example.com/", "//example.com", "example.com", ""])
def test_without_tls_goes_nothing_unless_it_is_allowed(url: str) -> None:
    with pytest.raises(InvalidRequest):
        WebhookTargets().check_url(url)
    WebhookTargets(plain_http=True).check_url("http://example.com/")


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://example.com:8443/a?b=c", "https://bücher.example/", "https://1.1.1.1/"]
)
def test_what_may_be_called(url: str) -> None:
    WebhookTargets().check_url(url)


@pytest.mark.parametrize("url", ["https://xn--/", "https://xn--a/hook", "https://a.xn--a.example/"])
def test_a_name_that_cannot_be_written_out_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        WebhookTargets().check_url(url)
