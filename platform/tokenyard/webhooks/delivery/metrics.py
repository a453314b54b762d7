"""What becomes of attempts, and how long what is due waits."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from tokenyard.webhooks.states import DeliveryState


class WebhookMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "tokenyard_webhook_attempts",
            "Attempts to deliver an event, by what the delivery is after it; `waiting` is tried again.",
            ["state"],
            registry=registry,
        )
        self._oldest = Gauge(
            "tokenyard_webhook_oldest_due_seconds",
            "For how long the delivery that is due for the longest time waits to be sent.",
            registry=registry,
        )

    def tried(self, state: DeliveryState) -> None:
        self._attempts.labels(state.value).inc()

    def waits(self, longest_ms: int) -> None:
        self._oldest.set(longest_ms / 1000)
