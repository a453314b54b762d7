"""Webhooks as the API shows them: endpoints in OpenAI's shapes, and what was told to them."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field

from tokenyard.web.pages import Identified
from tokenyard.web.request_guard import NO_NUL
from tokenyard.webhooks.event_types import EventType
from tokenyard.webhooks.history import EventHistory
from tokenyard.webhooks.states import DeliveryState
from tokenyard.webhooks.tables import WebhookAttemptRow, WebhookDeliveryRow, WebhookEndpointRow
from tokenyard.webhooks.targets import MAX_URL

Json = dict[str, object]


def _once_each(types: list[EventType | Literal["*"]]) -> list[EventType | Literal["*"]]:
    return list(dict.fromkeys(types))


Name = Annotated[str, Field(min_length=1, max_length=128, pattern=NO_NUL)]
Url = Annotated[str, Field(max_length=MAX_URL, pattern=NO_NUL)]
EventTypes = Annotated[list[EventType | Literal["*"]], Field(min_length=1, max_length=100), AfterValidator(_once_each)]
"""`*` is all of them, also those that there will be."""


class NewWebhookEndpoint(BaseModel, extra="forbid"):
    name: Name
    url: Url
    event_types: EventTypes


class WebhookEndpointChanges(BaseModel, extra="forbid"):
    """What is not given stays."""

    name: Name | None = None
    url: Url | None = None
    event_types: EventTypes | None = None
    enabled: bool | None = None


class WebhookEndpointSwitch(BaseModel, extra="forbid"):
    """An operator's word on an endpoint; the reason is shown to its owner."""

    enabled: bool
    reason: str = Field(default="", max_length=200, pattern=NO_NUL)


class SecretRotation(BaseModel, extra="forbid"):
    keep_old_secret_active_for_24_hours: bool = False


class SampleRequest(BaseModel, extra="forbid"):
    event_type: EventType


class ResendRequest(BaseModel, extra="forbid"):
    webhook_endpoint_id: str = Field(max_length=96, pattern=NO_NUL)


class ReplayRequest(BaseModel, extra="forbid"):
    """Since then, in unix seconds."""

    since: int = Field(ge=0, lt=2**40)


class WebhookEndpointView(Identified):
    """OpenAI's endpoint, and whether it is sent anything."""

    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    enabled: bool
    disabled_reason: str | None
    created_at: int
    updated_at: int

    @classmethod
    def of(cls, row: WebhookEndpointRow) -> Self:
        return cls(**_endpoint(row))


class WebhookEndpointWithSecret(WebhookEndpointView):
    """It is shown this once."""

    signing_secret: str

    @classmethod
    def made(cls, row: WebhookEndpointRow, secret: str) -> "WebhookEndpointWithSecret":
        return cls(signing_secret=secret, **_endpoint(row))


def _endpoint(row: WebhookEndpointRow) -> Json:
    return {
        "id": row.id,
        "name": row.name,
        "url": row.url,
        "event_types": row.event_types,
        "signing_secret_hint": row.secret_hint,
        "enabled": row.enabled,
        "disabled_reason": row.disabled_reason,
        "created_at": row.created_at_ms // 1000,
        "updated_at": row.updated_at_ms // 1000,
    }


class DeletedWebhookEndpoint(BaseModel):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookEventTypesView(BaseModel):
    object: Literal["list"] = "list"
    data: Sequence[EventType]


class SampleResult(BaseModel):
    """An endpoint answered a sample; `status_code` says what."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


class ReplayResult(BaseModel):
    """So many events are being sent again; where there are more, ask again."""

    object: Literal["webhook_endpoint.replay"] = "webhook_endpoint.replay"
    webhook_endpoint_id: str
    events: int
    has_more: bool


class WebhookDeliveryView(BaseModel):
    """What became of an event at one endpoint. `next_attempt_at` is null once that is over."""

    object: Literal["webhook_delivery"] = "webhook_delivery"
    webhook_endpoint_id: str
    state: DeliveryState
    attempts: int
    next_attempt_at: int | None

    @classmethod
    def of(cls, row: WebhookDeliveryRow) -> "WebhookDeliveryView":
        return cls(
            webhook_endpoint_id=row.endpoint,
            state=DeliveryState(row.state),
            attempts=row.attempts,
            next_attempt_at=None if row.due_at_ms is None else row.due_at_ms // 1000,
        )


class WebhookAttemptView(BaseModel):
    """`status_code` is null where nothing answered, and `error` says why; `answer` is how the answer began."""

    object: Literal["webhook_attempt"] = "webhook_attempt"
    webhook_endpoint_id: str
    at_ms: int
    duration_ms: int
    status_code: int | None
    error: str | None
    answer: str

    @classmethod
    def of(cls, row: WebhookAttemptRow) -> "WebhookAttemptView":
        return cls(
            webhook_endpoint_id=row.endpoint,
            at_ms=row.at_ms,
            duration_ms=row.duration_ms,
            status_code=row.status,
            error=row.error,
            answer=row.answer,
        )


class WebhookEventView(Identified):
    """An event as it is sent, and what became of it."""

    object: Literal["event"] = "event"
    type: str
    created_at: int
    data: Json
    deliveries: list[WebhookDeliveryView]

    @classmethod
    def of(cls, found: EventHistory) -> Self:
        return cls(**_event(found))


class WebhookEventDetails(WebhookEventView):
    """With the last attempts, the first one first."""

    attempts: list[WebhookAttemptView]

    @classmethod
    def of(cls, found: EventHistory) -> Self:
        return cls(attempts=[WebhookAttemptView.of(row) for row in found.attempts], **_event(found))


def _event(found: EventHistory) -> Json:
    return {
        "id": found.event.id,
        "type": found.event.type,
        "created_at": found.event.at_ms // 1000,
        "data": found.event.data,
        "deliveries": [WebhookDeliveryView.of(row) for row in found.deliveries],
    }
