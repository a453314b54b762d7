"""What the API tells of webhooks."""

from tokenyard.clients.platform_api.shapes import ApiObject


class WebhookEndpointInfo(ApiObject):
    """Where an organization is told of `event_types`; `disabled_reason` is there where the platform disabled it."""

    id: str
    name: str
    url: str
    event_types: list[str]
    enabled: bool
    disabled_reason: str | None


class WebhookDeliveryInfo(ApiObject):
    webhook_endpoint_id: str
    state: str
    attempts: int
    next_attempt_at: int | None


class WebhookAttemptInfo(ApiObject):
    """An attempt; where nothing answered, there is an `error` in place of a `status_code`."""

    webhook_endpoint_id: str
    at_ms: int
    duration_ms: int
    status_code: int | None
    error: str | None
    answer: str


class WebhookEventInfo(ApiObject):
    """An event of an organization; `attempts` only where it was asked for by its id."""

    id: str
    type: str
    created_at: int
    data: dict[str, object]
    deliveries: list[WebhookDeliveryInfo]
    attempts: tuple[WebhookAttemptInfo, ...] = ()


class WebhookReplayInfo(ApiObject):
    events: int
    has_more: bool
