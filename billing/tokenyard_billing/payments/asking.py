"""Asks a provider how a payment stands, and takes its next step there. What it takes is in SQL before it is taken."""

from collections.abc import Awaitable, Callable

import msgspec

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard_billing.payments.ports import (
    ChargeOrder,
    ChargeProgress,
    ChargeState,
    CheckoutState,
    PaymentProvider,
    ProviderRefused,
)
from tokenyard_billing.payments.tables import Payment

PAGE_MS = 60 * 60_000
"""For so long somebody may take to pay on a provider's page."""
PAGE_GRACE_MS = 10 * 60_000
CANCELLED = ChargeProgress(ChargeState.CANCELLED)


class PaymentSteps(msgspec.Struct, frozen=True):
    """`keep` writes down the provider's id of a charge, and raises where that cannot be done any more.

    `wanted` tells whether a payment's invoice still claims just its amount.
    """

    provider: PaymentProvider
    keep: Callable[[Payment, str], Awaitable[None]]
    wanted: Callable[[Payment], Awaitable[bool]]

    async def ask(self, payment: Payment, now_ms: int) -> ChargeProgress | None:
        """Return how it stands, None where nothing has happened yet. Raises `ProviderUnavailable`."""
        if payment.method is None:
            return await self._paged(payment, now_ms)
        return await self._charged(payment, payment.method)

    async def _charged(self, payment: Payment, method: str) -> ChargeProgress:
        if payment.charge is None:
            if not await self.wanted(payment):
                return CANCELLED
            try:
                charge = await self.provider.begin(_order(payment, method))
            except ProviderRefused as refused:
                return ChargeProgress(ChargeState.FAILED, refused.code, refused.message)
            await self.keep(payment, charge)
            progress = ChargeProgress(ChargeState.UNCONFIRMED)
        else:
            charge = payment.charge
            progress = await self.provider.progress(charge)
        if progress.state is ChargeState.UNCONFIRMED:
            if not await self.wanted(payment):
                return await self.provider.cancel(charge)
            progress = await self.provider.confirm(charge)
        if progress.state is ChargeState.WAITING:  # for somebody who is not there
            progress = msgspec.structs.replace(progress, state=ChargeState.FAILED)
        return await self._ended(charge, progress)

    async def _paged(self, payment: Payment, now_ms: int) -> ChargeProgress | None:
        if payment.checkout is None:  # whoever asked for it got no page, or gets it now
            return CANCELLED if now_ms > payment.created_at_ms + PAGE_MS + PAGE_GRACE_MS else None
        if payment.charge is None:
            page = await self.provider.checkout_progress(payment.checkout)
            if page.state is CheckoutState.OPEN:
                return None
            if page.charge is None or page.state is CheckoutState.EXPIRED:
                return CANCELLED if page.charge is None else await self.provider.cancel(page.charge)
            await self.keep(payment, page.charge)
            payment.charge = page.charge
        return await self._ended(payment.charge, await self.provider.progress(payment.charge))

    async def _ended(self, charge: str, progress: ChargeProgress) -> ChargeProgress:
        """See to it that what has failed cannot succeed later."""
        if progress.state is not ChargeState.FAILED:
            return progress
        left = await self.provider.cancel(charge)
        return progress if left.state is ChargeState.CANCELLED else left


def _order(payment: Payment, method: str) -> ChargeOrder:
    return ChargeOrder(
        payment=payment.id,
        organization=OrganizationId(payment.organization),
        invoice=payment.invoice or "",
        customer=payment.customer,
        method=method,
        amount=NanoDollars(payment.amount),
        attempt=payment.attempts,
    )
