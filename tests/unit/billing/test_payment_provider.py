"""Which provider of payments the settings open."""

import sys

import pytest
from pydantic import SecretStr, ValidationError

from tokenyard.bootstrap.payments import MODULE, PaymentsNotInstalled, payment_provider
from tokenyard.settings import Settings

WITH_STRIPE = Settings(stripe_secret_key=SecretStr("sk_test"), stripe_webhook_secret=SecretStr("whsec_test"))


async def test_without_a_key_there_is_none() -> None:
    async with payment_provider(Settings()) as provider:
        assert provider is None


async def test_with_a_key_it_is_stripe() -> None:
    async with payment_provider(WITH_STRIPE) as provider:
        assert provider is not None
        assert provider.name == "stripe"


async def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setitem(sys.modules, "stripe", None)
    with pytest.raises(PaymentsNotInstalled, match=r"tokenyard\[stripe\]"):
        async with payment_provider(WITH_STRIPE):
            pass


def test_a_key_needs_the_secret_of_its_webhooks() -> None:
    with pytest.raises(ValidationError, match="stripe_webhook_secret"):
        Settings(stripe_secret_key=SecretStr("sk_test"))


def test_days_of_dunning_are_read_from_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENYARD_DUNNING_DAYS", "0,3,7,14")
    assert Settings().dunning_days == (0, 3, 7, 14)
