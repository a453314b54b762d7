"""Opens the provider of payments that the settings name."""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenyard.settings import Settings
from tokenyard_billing.payments.ports import PaymentProvider

MODULE = "tokenyard_billing.payments.stripe_provider"


class PaymentsNotInstalled(Exception):
    """The settings name a provider whose package is not there."""


@asynccontextmanager
async def payment_provider(settings: Settings) -> AsyncIterator[PaymentProvider | None]:
    """Yield the provider, None where payments are noted by operators alone.

    Raises:
        PaymentsNotInstalled: the settings name Stripe, and its package is not there.
    """
    secret = settings.stripe_secret_key.get_secret_value()
    if not secret:
        yield None
        return
    try:
        # Its package is an extra, and takes half a second.
        module = importlib.import_module(MODULE)
    except ModuleNotFoundError as error:
        message = "TOKENYARD_STRIPE_SECRET_KEY is set; install the extra that talks to Stripe: tokenyard[stripe]"
        raise PaymentsNotInstalled(message) from error
    provider: PaymentProvider
    async with module.StripeProvider.opened(
        secret,
        webhook_secret=settings.stripe_webhook_secret.get_secret_value(),
        return_url=settings.payment_return_url or settings.effective_api_url,
        api_url=settings.stripe_api_url,
    ) as provider:
        yield provider
