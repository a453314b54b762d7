"""Where a provider tells of something by itself. No key opens it: the provider's signature over the body does."""

from typing import Annotated

from fastapi import APIRouter, Header, Request

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard_billing.payments.operator_store import PaymentOperatorStore
from tokenyard_billing.payments.ports import InvalidEvent, PaymentProvider
from tokenyard_billing.payments.views import TakenEventView

_BODY: dict[str, object] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}


def router(provider: PaymentProvider | None, store: PaymentOperatorStore, clock: Clock) -> APIRouter:
    """Return the route; its body is bounded where all bodies are."""
    routes = APIRouter(prefix="/webhooks", tags=["billing"])

    @routes.post("/stripe", openapi_extra=_BODY)
    async def told_by_stripe(
        request: Request, stripe_signature: Annotated[str, Header(max_length=4096)] = ""
    ) -> TakenEventView:
        """Take an event of Stripe's."""
        if provider is None or provider.name != "stripe":
            raise NotFound("This installation takes no payments by Stripe.")
        try:
            event = provider.event(await request.body(), stripe_signature, clock.now_ms())
        except InvalidEvent as error:
            raise InvalidRequest(str(error)) from error
        await store.take(event)
        return TakenEventView()

    return routes
