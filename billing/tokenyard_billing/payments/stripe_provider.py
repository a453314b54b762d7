"""Stripe as a provider of payments; nothing else knows it. An installation that uses it has the extra `stripe`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, cast

import aiohttp
import msgspec
import stripe

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import CENT, NanoDollars, to_dollars
from tokenyard_billing.payments.ports import (
    ChargeOrder,
    ChargeProgress,
    ChargeState,
    CheckoutOrder,
    CheckoutPage,
    CheckoutProgress,
    CheckoutState,
    CustomerGone,
    InvalidEvent,
    ProviderEvent,
    ProviderRefused,
    ProviderUnavailable,
    StoredMethod,
)

if TYPE_CHECKING:
    from stripe.params import PaymentIntentCreateParams
    from stripe.params.checkout import SessionCreateParams

TIMEOUT_S = 20.0
TOLERANCE_MS = 300_000
MAX_METHODS = 100
_UNKNOWN = (stripe.APIConnectionError, stripe.APIError, stripe.RateLimitError)
# The installation's own fault: nobody's payment fails for it.
_OURS = (stripe.AuthenticationError, stripe.PermissionError, stripe.IdempotencyError)
_STATES = {
    "requires_confirmation": ChargeState.UNCONFIRMED,
    "requires_action": ChargeState.WAITING,
    "processing": ChargeState.PROCESSING,
    "succeeded": ChargeState.SUCCEEDED,
    "canceled": ChargeState.CANCELLED,
}
"""What else there is has failed."""


class StripeProvider:
    """Talks to Stripe, or to `api_url` in its place.

    A charge is a PaymentIntent that is created first and confirmed once its id is in SQL: no answer that is lost can
    take money twice, however much later it is asked again.
    """

    name = "stripe"

    def __init__(self, client: stripe.StripeClient, *, webhook_secret: str, return_url: str) -> None:
        self._client = client.v1
        self._webhook_secret = webhook_secret
        self._return_url = return_url

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, api_key: str, *, webhook_secret: str, return_url: str, api_url: str = "", timeout_s: float = TIMEOUT_S
    ) -> AsyncIterator[Self]:
        """Keep connections for the length of the block; `return_url` is where people come back to from Stripe."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session:
            http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=timeout_s), session=session)
            addresses: Any = {"api": api_url} if api_url else {}
            client = stripe.StripeClient(api_key, http_client=http, base_addresses=addresses, max_network_retries=0)
            yield cls(client, webhook_secret=webhook_secret, return_url=return_url)

    async def customer(self, organization: OrganizationId) -> str:
        async with _asking():
            # No key that stays: it would repeat an error for a day. A customer that is lost harms nobody.
            found = await self._client.customers.create_async({"metadata": {"organization": organization}})
        return found.id

    async def begin(self, order: ChargeOrder) -> str:
        params: PaymentIntentCreateParams = {
            "amount": order.amount // CENT,
            "currency": "usd",
            "customer": order.customer,
            "payment_method": order.method,
            # Nobody is there to be sent elsewhere.
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": _metadata(order.payment, order.organization, order.invoice),
        }
        async with _asking():
            intent = await self._client.payment_intents.create_async(params, _once(order.payment, order.attempt))
        return intent.id

    async def confirm(self, charge: str) -> ChargeProgress:
        try:
            async with _asking():
                return _progress(await self._client.payment_intents.confirm_async(charge, {"off_session": True}))
        except ProviderRefused as refused:  # declined, or confirmed before: the intent itself says it
            found = await self.progress(charge)
            if found.state is ChargeState.UNCONFIRMED:  # and will be for ever, such as where its method is gone
                return ChargeProgress(ChargeState.FAILED, refused.code, refused.message)
            return found

    async def progress(self, charge: str) -> ChargeProgress:
        async with _asking():
            return _progress(await self._client.payment_intents.retrieve_async(charge))

    async def cancel(self, charge: str) -> ChargeProgress:
        try:
            async with _asking():
                return _progress(await self._client.payment_intents.cancel_async(charge))
        except ProviderRefused:  # it took money meanwhile, takes it now, or was cancelled before
            return await self.progress(charge)

    async def checkout(self, order: CheckoutOrder) -> CheckoutPage:
        metadata = _metadata(order.payment, order.organization, "")
        params: SessionCreateParams = {
            "mode": "payment",
            "customer": order.customer,
            "line_items": [
                {
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": order.amount // CENT,
                        "product_data": {"name": order.title},
                    },
                    "quantity": 1,
                }
            ],
            "payment_intent_data": {"metadata": metadata},
            "metadata": metadata,
            "success_url": self._return_url,
            "cancel_url": self._return_url,
            "expires_at": order.expires_at_ms // 1000,
        }
        once = _once(f"{order.payment}-{order.customer}", order.attempt)
        async with _asking():
            session = await self._client.checkout.sessions.create_async(params, once)
        return CheckoutPage(session.id, session.url or "")

    async def setup(self, organization: OrganizationId, customer: str) -> CheckoutPage:
        params: SessionCreateParams = {
            "mode": "setup",
            "currency": "usd",
            "customer": customer,
            "metadata": {"organization": organization},
            "success_url": self._return_url,
            "cancel_url": self._return_url,
        }
        async with _asking():
            session = await self._client.checkout.sessions.create_async(params)
        return CheckoutPage(session.id, session.url or "")

    async def checkout_progress(self, checkout: str) -> CheckoutProgress:
        async with _asking():
            session = await self._client.checkout.sessions.retrieve_async(checkout, {"expand": ["setup_intent"]})
        setup = session.setup_intent
        method = None if setup is None or isinstance(setup, str) else _id(setup.payment_method)
        state = {"open": CheckoutState.OPEN, "complete": CheckoutState.COMPLETED}.get(session.status or "")
        return CheckoutProgress(state or CheckoutState.EXPIRED, _id(session.payment_intent), method)

    async def methods(self, customer: str) -> Sequence[StoredMethod]:
        async with _asking():
            found = await self._client.customers.payment_methods.list_async(customer, {"limit": MAX_METHODS})
        return [_method(one) for one in found.data]

    async def forget(self, method: str) -> None:
        async with _asking():
            await self._client.payment_methods.detach_async(method)

    def event(self, body: bytes, signature: str, now_ms: int) -> ProviderEvent:
        try:
            stripe.WebhookSignature.verify_header(body, signature, self._webhook_secret)
            at_ms = 1000 * int(next(part[2:] for part in signature.split(",") if part.startswith("t=")))
            event = msgspec.json.decode(body, type=_Event)
        # TypeError: a signature that is not ASCII.
        except (stripe.SignatureVerificationError, ValueError, TypeError, StopIteration) as error:
            raise InvalidEvent("The signature is not Stripe's.") from error
        if abs(now_ms - at_ms) > TOLERANCE_MS:
            raise InvalidEvent("It was signed too long ago.")
        return _event(event)


class _EventObject(msgspec.Struct, frozen=True):
    id: str = ""  # a balance has none
    object: str = ""
    payment_intent: str | None = None
    amount_refunded: int = 0  # cents, in all


class _EventData(msgspec.Struct, frozen=True):
    object: _EventObject


class _Event(msgspec.Struct, frozen=True):
    id: str
    type: str
    data: _EventData


def _event(event: _Event) -> ProviderEvent:
    told = event.data.object
    if event.type == "charge.refunded":
        # A charge is refunded in any number of parts, and each is to be seen.
        refunded = to_dollars(told.amount_refunded * CENT)
        return ProviderEvent(
            told.payment_intent,
            alarm="payment_refunded",
            subject=f"{told.id} {refunded}",
            message=f"{refunded} dollars of it, in all, were refunded at Stripe, which the books do not know of.",
        )
    if event.type == "charge.dispute.created":
        message = "The payer disputes it: answer at Stripe."
        return ProviderEvent(told.payment_intent, alarm="payment_disputed", subject=told.id, message=message)
    if told.object == "checkout.session":
        return ProviderEvent(told.payment_intent, told.id)
    return ProviderEvent(told.id if told.object == "payment_intent" else None)


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    """Turn what can go wrong into what the port knows."""
    try:
        yield
    except _OURS as error:
        raise ProviderUnavailable(f"Stripe refuses this installation: {error.user_message}") from error
    except (*_UNKNOWN, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ProviderUnavailable(f"Stripe gave no answer: {type(error).__name__}") from error
    except stripe.StripeError as error:
        gone = error.code == "resource_missing" and getattr(error, "param", None) == "customer"
        refusal = CustomerGone if gone else ProviderRefused
        raise refusal(error.code or "refused", error.user_message or "Stripe refuses it.") from error


def _once(payment: str, attempt: int) -> Any:
    # Stripe answers a key for a day as it did at first, also with an error of its own: so another attempt has another.
    return {"idempotency_key": f"{payment}-{attempt}"}


def _metadata(payment: str, organization: OrganizationId, invoice: str) -> dict[str, str]:
    return {"payment": payment, "organization": organization, **({"invoice": invoice} if invoice else {})}


def _progress(intent: stripe.PaymentIntent) -> ChargeProgress:
    state = _STATES.get(intent.status, ChargeState.FAILED)
    if state is ChargeState.WAITING:
        return ChargeProgress(state, "authentication_required", "The payer must confirm it.")
    if state is ChargeState.SUCCEEDED:
        dollars = intent.currency == "usd"
        return ChargeProgress(state, taken=NanoDollars(intent.amount_received * CENT if dollars else 0))
    if state is not ChargeState.FAILED:
        return ChargeProgress(state)
    error = intent.last_payment_error
    code = getattr(error, "decline_code", None) or getattr(error, "code", None) or "failed"
    return ChargeProgress(state, code, getattr(error, "message", None) or "The payment failed.")


def _id(found: Any) -> str | None:
    """Return the id of what Stripe names by it, or shows whole."""
    return found if found is None or isinstance(found, str) else cast(str, found.id)


def _method(found: stripe.PaymentMethod) -> StoredMethod:
    card = getattr(found, "card", None)
    if card is None:
        details = getattr(found, found.type, None)
        return StoredMethod(found.id, found.type, "", getattr(details, "last4", None) or "", "")
    return StoredMethod(found.id, found.type, card.brand, card.last4, f"{card.exp_year:04d}-{card.exp_month:02d}")
