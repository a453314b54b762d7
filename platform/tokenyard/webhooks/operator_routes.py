"""Any organization's webhooks, for operators: to see what reaches it, to tell it again, and to stop an endpoint."""

from fastapi import APIRouter

from tokenyard.web.auth import CurrentOperator
from tokenyard.web.pages import After, Page, PageSize
from tokenyard.webhooks.history import WebhookEventStore
from tokenyard.webhooks.ports import OrganizationFinder
from tokenyard.webhooks.store import EndpointChange, WebhookEndpointStore
from tokenyard.webhooks.tenant_routes import WantedEvents
from tokenyard.webhooks.views import (
    ReplayRequest,
    ReplayResult,
    ResendRequest,
    WebhookEndpointSwitch,
    WebhookEndpointView,
    WebhookEventDetails,
    WebhookEventView,
)


def operator_webhook_router(
    find: OrganizationFinder, endpoints: WebhookEndpointStore, events: WebhookEventStore
) -> APIRouter:
    """Return the routes; `{organization}` is an id or a slug."""
    routes = APIRouter(prefix="/admin/organizations/{organization}", tags=["webhooks"])
    _endpoint_routes(routes, find, endpoints)
    _event_routes(routes, find, events)
    return routes


def _endpoint_routes(routes: APIRouter, find: OrganizationFinder, endpoints: WebhookEndpointStore) -> None:
    @routes.get("/webhook_endpoints")
    async def webhook_endpoints_of(
        _operator: CurrentOperator, organization: str, after: After = None, limit: PageSize = 20
    ) -> Page[WebhookEndpointView]:
        found = await endpoints.page(await find(organization), limit=limit + 1, after=after)
        return Page[WebhookEndpointView].of([WebhookEndpointView.of(row) for row in found], limit)

    @routes.patch("/webhook_endpoints/{endpoint}")
    async def switch_webhook_endpoint(
        operator: CurrentOperator, organization: str, endpoint: str, body: WebhookEndpointSwitch
    ) -> WebhookEndpointView:
        """Disable an endpoint, or enable it."""
        change = EndpointChange(enabled=body.enabled)
        owner = await find(organization)
        return WebhookEndpointView.of(
            await endpoints.change(owner, endpoint, change, actor=operator.key, reason=body.reason)
        )


def _event_routes(routes: APIRouter, find: OrganizationFinder, events: WebhookEventStore) -> None:
    @routes.post("/webhook_endpoints/{endpoint}/replay")
    async def replay_events_of(
        operator: CurrentOperator, organization: str, endpoint: str, body: ReplayRequest
    ) -> ReplayResult:
        """Send an endpoint all events of its types since then that it did not get."""
        owner = await find(organization)
        count, more = await events.replay(owner, endpoint, since=body.since, actor=operator.key)
        return ReplayResult(webhook_endpoint_id=endpoint, events=count, has_more=more)

    @routes.get("/webhook_events")
    async def webhook_events_of(
        _operator: CurrentOperator, organization: str, wanted: WantedEvents, after: After = None, limit: PageSize = 20
    ) -> Page[WebhookEventView]:
        found = await events.page(await find(organization), wanted, limit=limit + 1, after=after)
        return Page[WebhookEventView].of([WebhookEventView.of(one) for one in found], limit)

    @routes.get("/webhook_events/{event}")
    async def webhook_event_of(_operator: CurrentOperator, organization: str, event: str) -> WebhookEventDetails:
        return WebhookEventDetails.of(await events.get(await find(organization), event))

    @routes.post("/webhook_events/{event}/resend")
    async def resend_event_of(
        operator: CurrentOperator, organization: str, event: str, body: ResendRequest
    ) -> WebhookEventDetails:
        """Send an event to one endpoint once more, as if it had never been tried."""
        owner = await find(organization)
        return WebhookEventDetails.of(await events.resend(owner, event, body.webhook_endpoint_id, actor=operator.key))
