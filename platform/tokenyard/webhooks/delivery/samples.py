"""Sends an endpoint a sample at once, so that its owner sees whether it understands what will come."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, InvalidRequest, RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId, random_text
from tokenyard.webhooks.delivery.sending import WebhookSender
from tokenyard.webhooks.event import WebhookMessage, signed_headers
from tokenyard.webhooks.store import WebhookEndpointStore

AT_ONCE = 16
OF_ORGANIZATION = 2


class SampleSender:
    """The bounds are of one process."""

    def __init__(self, endpoints: WebhookEndpointStore, sender: WebhookSender, clock: Clock) -> None:
        self._endpoints = endpoints
        self._sender = sender
        self._clock = clock
        self._under_way = Counter[OrganizationId]()

    async def send(self, organization: OrganizationId, endpoint: str, kind: str) -> int:
        """Send an event of a type whose data says that nothing happened; return the status of the answer.

        It is no event of the organization: nothing is noted, and nothing is sent again.

        Raises:
            InvalidRequest: nothing answered.
            Conflict: the endpoint's secret cannot be read any more.
            RateLimited: too many samples of this organization at once.
            Unavailable: too many samples at once.
        """
        row, secrets = await self._endpoints.with_secrets(organization, endpoint)
        if not secrets:
            raise Conflict("The signing secret of this endpoint cannot be read any more. Rotate it.")
        now_s = self._clock.now_ms() // 1000
        message = WebhookMessage(f"evt_test_{random_text()}", kind, now_s, {"id": "test"})
        body = message.body()
        with self._slot(organization):
            answer = await self._sender.send(row.url, signed_headers(message.id, body, secrets, at_s=now_s), body)
        if answer.status is None:
            raise InvalidRequest(f"The endpoint did not answer. {answer.error}", code="webhook_endpoint_failed")
        return answer.status

    @contextmanager
    def _slot(self, organization: OrganizationId) -> Iterator[None]:
        if self._under_way[organization] >= OF_ORGANIZATION:
            raise RateLimited(f"At most {OF_ORGANIZATION} samples of an organization at once.", retry_after_s=5)
        if self._under_way.total() >= AT_ONCE:
            raise Unavailable("Too many samples at once.", retry_after_s=5)
        self._under_way[organization] += 1
        try:
            yield
        finally:
            self._under_way[organization] -= 1
            if not self._under_way[organization]:
                del self._under_way[organization]
