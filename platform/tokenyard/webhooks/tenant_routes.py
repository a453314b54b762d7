"""`/v1/webhook_endpoints` as OpenAI's API has it, and `/v1/webhook_events`: what was told, and telling it again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from tokenyard.web.auth import CurrentTenant, FreshTenant
from tokenyard.web.pages import After, Page, PageSize
from tokenyard.webhooks.delivery.samples import SampleSender
from tokenyard.webhooks.event_types import EVENT_TYPES, EventType
from tokenyard.webhooks.history import EventFilter, WebhookEventStore
from tokenyard.webhooks.states import DeliveryState
from tokenyard.webhooks.store import EndpointChange, WebhookEndpointStore
from tokenyard.webhooks.views import (
    DeletedWebhookEndpoint,
    NewWebhookEndpoint,
    ReplayRequest,
    ReplayResult,
    ResendRequest,
    SampleRequest,
    SampleResult,
    SecretRotation,
    WebhookEndpointChanges,
    WebhookEndpointView,
    WebhookEndpointWithSecret,
    WebhookEventDetails,
    WebhookEventTypesView,
    WebhookEventView,
)

Moment = Annotated[int | None, Query(ge=0, lt=2**40, description="Unix seconds.")]
EndpointId = Annotated[str | None, Query(max_length=96)]


def event_filter(
    event_type: EventType | None = None,
    start_time: Moment = None,
    end_time: Moment = None,
    webhook_endpoint_id: EndpointId = None,
    state: DeliveryState | None = None,
) -> EventFilter:
    """Read which events are asked for; `state` is that of a delivery, to the endpoint where one is named."""
    return EventFilter(event_type, start_time, end_time, webhook_endpoint_id, state)


WantedEvents = Annotated[EventFilter, Depends(event_filter)]


def webhook_router(endpoints: WebhookEndpointStore, events: WebhookEventStore, samples: SampleSender) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["webhooks"])
    _endpoint_routes(routes, endpoints)
    _secret_and_sample_routes(routes, endpoints, samples)
    _event_routes(routes, events)
    return routes


def _endpoint_routes(routes: APIRouter, endpoints: WebhookEndpointStore) -> None:
    @routes.post("/webhook_endpoints")
    async def create_webhook_endpoint(tenant: FreshTenant, body: NewWebhookEndpoint) -> WebhookEndpointWithSecret:
        """Make an endpoint of the organization; its signing secret is shown this once."""
        row, secret = await endpoints.create(
            tenant.organization, name=body.name, url=body.url, event_types=body.event_types, actor=tenant.key
        )
        return WebhookEndpointWithSecret.made(row, secret)

    @routes.get("/webhook_endpoints")
    async def list_webhook_endpoints(
        tenant: CurrentTenant, after: After = None, limit: PageSize = 20
    ) -> Page[WebhookEndpointView]:
        found = await endpoints.page(tenant.organization, limit=limit + 1, after=after)
        return Page[WebhookEndpointView].of([WebhookEndpointView.of(row) for row in found], limit)

    @routes.get("/webhook_endpoints/{webhook_endpoint_id}")
    async def retrieve_webhook_endpoint(tenant: CurrentTenant, webhook_endpoint_id: str) -> WebhookEndpointView:
        return WebhookEndpointView.of(await endpoints.get(tenant.organization, webhook_endpoint_id))

    @routes.post("/webhook_endpoints/{webhook_endpoint_id}")
    async def update_webhook_endpoint(
        tenant: FreshTenant, webhook_endpoint_id: str, body: WebhookEndpointChanges
    ) -> WebhookEndpointView:
        """Change an endpoint. What waits for one that is disabled fails, and may be replayed later."""
        change = EndpointChange(body.name, body.url, body.event_types, body.enabled)
        row = await endpoints.change(tenant.organization, webhook_endpoint_id, change, actor=tenant.key)
        return WebhookEndpointView.of(row)

    @routes.delete("/webhook_endpoints/{webhook_endpoint_id}")
    async def delete_webhook_endpoint(tenant: FreshTenant, webhook_endpoint_id: str) -> DeletedWebhookEndpoint:
        await endpoints.delete(tenant.organization, webhook_endpoint_id, actor=tenant.key)
        return DeletedWebhookEndpoint(id=webhook_endpoint_id)

    @routes.get("/webhook_event_types")
    async def list_webhook_event_types(_tenant: CurrentTenant) -> WebhookEventTypesView:
        return WebhookEventTypesView(data=EVENT_TYPES)


def _secret_and_sample_routes(routes: APIRouter, endpoints: WebhookEndpointStore, samples: SampleSender) -> None:
    @routes.post("/webhook_endpoints/{webhook_endpoint_id}/rotate_secret")
    async def rotate_webhook_secret(
        tenant: FreshTenant, webhook_endpoint_id: str, body: SecretRotation | None = None
    ) -> WebhookEndpointWithSecret:
        """Make a new signing secret, shown this once; the one before signs too for a day where that is asked for."""
        keep = body is not None and body.keep_old_secret_active_for_24_hours
        row, secret = await endpoints.rotate(
            tenant.organization, webhook_endpoint_id, keep_former=keep, actor=tenant.key
        )
        return WebhookEndpointWithSecret.made(row, secret)

    @routes.post("/webhook_endpoints/{webhook_endpoint_id}/test")
    async def test_webhook_endpoint(tenant: FreshTenant, webhook_endpoint_id: str, body: SampleRequest) -> SampleResult:
        """Send a sample now, to an endpoint that may be disabled, and tell how it answered."""
        status = await samples.send(tenant.organization, webhook_endpoint_id, body.event_type)
        return SampleResult(webhook_endpoint_id=webhook_endpoint_id, event_type=body.event_type, status_code=status)


def _event_routes(routes: APIRouter, events: WebhookEventStore) -> None:
    @routes.post("/webhook_endpoints/{webhook_endpoint_id}/replay")
    async def replay_webhook_events(tenant: FreshTenant, webhook_endpoint_id: str, body: ReplayRequest) -> ReplayResult:
        """Send an endpoint all events of its types since then that it did not get."""
        count, more = await events.replay(tenant.organization, webhook_endpoint_id, since=body.since, actor=tenant.key)
        return ReplayResult(webhook_endpoint_id=webhook_endpoint_id, events=count, has_more=more)

    @routes.get("/webhook_events")
    async def list_webhook_events(
        tenant: CurrentTenant, wanted: WantedEvents, after: After = None, limit: PageSize = 20
    ) -> Page[WebhookEventView]:
        """List the events of the last 30 days, newest first."""
        found = await events.page(tenant.organization, wanted, limit=limit + 1, after=after)
        return Page[WebhookEventView].of([WebhookEventView.of(one) for one in found], limit)

    @routes.get("/webhook_events/{event_id}")
    async def retrieve_webhook_event(tenant: CurrentTenant, event_id: str) -> WebhookEventDetails:
        return WebhookEventDetails.of(await events.get(tenant.organization, event_id))

    @routes.post("/webhook_events/{event_id}/resend")
    async def resend_webhook_event(tenant: FreshTenant, event_id: str, body: ResendRequest) -> WebhookEventDetails:
        """Send an event to one endpoint once more, as if it had never been tried."""
        endpoint = body.webhook_endpoint_id
        return WebhookEventDetails.of(await events.resend(tenant.organization, event_id, endpoint, actor=tenant.key))
