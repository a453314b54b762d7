"""What the gateway tells Prometheus. Labels are bounded: tenants cannot make series without end."""

from collections.abc import Callable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tokenyard.core.usage import TokenUsage
from tokenyard.web.metrics import FIRST_TOKEN_SECONDS, INTER_TOKEN_SECONDS, REQUEST_SECONDS, BoundedLabel

MAX_ORGANIZATIONS = 200
MAX_MODELS = 100
MAX_SERIES = 4096


class GatewayMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._organization = BoundedLabel(MAX_ORGANIZATIONS)
        self._model = BoundedLabel(MAX_MODELS)
        self._duration = Histogram(
            "tokenyard_http_request_duration_seconds",
            "Time from a request's arrival to the end of its reply.",
            ("endpoint", "status"),
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        first_token = Histogram(
            "tokenyard_time_to_first_token_seconds",
            "Time from a streaming request's arrival to the first bytes of its reply from the model server.",
            ("model",),
            buckets=FIRST_TOKEN_SECONDS,
            registry=registry,
        )
        inter_token = Histogram(
            "tokenyard_inter_token_latency_seconds",
            "Time between two arrivals from the model server within one stream.",
            ("model",),
            buckets=INTER_TOKEN_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "tokenyard_tokens",
            "Tokens relayed, as the gateway counted them.",
            ("organization", "model", "type"),
            registry=registry,
        )
        self._refusals = Counter(
            "tokenyard_refusals", "Requests refused, by the code of the error.", ("reason",), registry=registry
        )
        self._upstream_failures = Counter(
            "tokenyard_upstream_failures",
            "Attempts that a model server failed, by code.",
            ("reason",),
            registry=registry,
        )
        about = (
            "Requests under idempotency keys: replayed; or run, and their reply kept, gone (too long, or no room), or "
            "lost (Redis did not answer, or the key was another request's), or their key freed by a failure."
        )
        self._idempotent = Counter("tokenyard_idempotent_requests", about, ("outcome",), registry=registry)
        self._in_flight = Gauge("tokenyard_requests_in_flight", "Requests being served.", registry=registry)
        self._waiting = Gauge(
            "tokenyard_requests_waiting_for_wake", "Requests that wait for a model to wake up.", registry=registry
        )
        # Looking a series up by its labels costs more than counting does.
        self._durations = lru_cache(MAX_SERIES)(self._duration.labels)
        self._token_counters = lru_cache(MAX_SERIES)(self._counters_of)
        self.first_token = lru_cache(MAX_SERIES)(lambda model: first_token.labels(self._model(model)))
        self.inter_token = lru_cache(MAX_SERIES)(lambda model: inter_token.labels(self._model(model)))

    def count_in_flight(self, number: Callable[[], int]) -> None:
        """Take what tells how many requests are being served, whenever somebody looks."""
        self._in_flight.set_function(number)

    def count_waiting(self, number: Callable[[], int]) -> None:
        """Take what tells how many requests wait for a model to wake up."""
        self._waiting.set_function(number)

    def refused(self, reason: str) -> None:
        self._refusals.labels(reason).inc()

    def upstream_failed(self, reason: str) -> None:
        self._upstream_failures.labels(reason).inc()

    def idempotent(self, outcome: str) -> None:
        self._idempotent.labels(outcome).inc()

    def ended(self, endpoint: str, status: int, seconds: float) -> None:
        self._durations(endpoint, str(status)).observe(seconds)

    def used(self, organization: str, model: str, usage: TokenUsage) -> None:
        prompt, cached, output = self._token_counters(organization, model)
        prompt.inc(usage.prompt_tokens)
        if usage.cached_tokens:
            cached.inc(usage.cached_tokens)
        output.inc(usage.completion_tokens)

    def _counters_of(self, organization: str, model: str) -> tuple[Counter, Counter, Counter]:
        labels = self._organization(organization), self._model(model)
        return (
            self._tokens.labels(*labels, "input"),
            self._tokens.labels(*labels, "cached_input"),
            self._tokens.labels(*labels, "output"),
        )
