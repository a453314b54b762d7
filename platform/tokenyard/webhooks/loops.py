"""The loops of webhooks that a worker process runs; any number of workers may run them."""

from tokenyard.web.loops import Loop
from tokenyard.webhooks.delivery.deliverer import WebhookDeliverer
from tokenyard.webhooks.delivery.metrics import WebhookMetrics
from tokenyard.webhooks.delivery.operator_store import WebhookOperatorStore

DELIVER_S = 0.5
MAX_BACKOFF_S = 5.0
WATCH_S = 15.0
CLEAN_S = 300.0
EVENTS_AT_ONCE = 500
ROUNDS = 20


def webhook_loops(store: WebhookOperatorStore, deliverer: WebhookDeliverer, metrics: WebhookMetrics) -> list[Loop]:
    """Return the loops: send what is due, tell how long that waits, and delete what is old."""

    async def watch() -> None:
        metrics.waits(await store.longest_due_ms())

    async def clean() -> None:
        for _ in range(ROUNDS):
            if await store.delete_old(limit=EVENTS_AT_ONCE) < EVENTS_AT_ONCE:
                return

    return [
        Loop("deliver webhooks", deliverer.step, DELIVER_S, max_backoff_s=MAX_BACKOFF_S),
        Loop("watch webhooks", watch, WATCH_S),
        Loop("delete old events", clean, CLEAN_S),
    ]
