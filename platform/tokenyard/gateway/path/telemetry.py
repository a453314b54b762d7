"""What one request tells the outside about itself: reply headers, metrics and its line in the access log."""

import re
import time
from collections.abc import Sequence

from tokenyard.core.errors import TokenyardError
from tokenyard.core.ids import RequestId
from tokenyard.gateway.metrics import GatewayMetrics
from tokenyard.gateway.path.client import Headers
from tokenyard.metering.events import Settled
from tokenyard.web.access_log import AccessLog

OPENAI_VERSION = b"2020-10-01"
_NOTABLE = re.compile(r"[\x21-\x7e]{1,128}")


class RequestTelemetry:
    """Kept from arrival to end. The client's own id for the request is only noted."""

    def __init__(
        self,
        request_id: RequestId,
        endpoint: str,
        metrics: GatewayMetrics,
        log: AccessLog,
        *,
        at_s: float,
        id_headers: Sequence[str],
    ) -> None:
        self.request_id = request_id
        self._endpoint = endpoint
        self._metrics = metrics
        self._log = log
        self._at_s = at_s
        self._began = time.perf_counter()
        self._last: float | None = None
        self._reply: list[tuple[bytes, bytes]] = [
            *((name.encode(), self.request_id.encode()) for name in id_headers),
            (b"openai-version", OPENAI_VERSION),
        ]
        self._noted: dict[str, object] = {}
        self._model = ""

    def note_client_id(self, given: str | None) -> None:
        """Keep the client's own request id for the log, where it is printable."""
        if given is not None and _NOTABLE.fullmatch(given):
            self._noted["client_request"] = given

    def caller(self, organization: str, project: str, key: str) -> None:
        self._noted.update(organization=organization, project=project, key=key)
        self._reply.append((b"openai-organization", organization.encode()))

    def admitted(self, model: str, rates: Headers) -> None:
        self._model = model
        self._reply += rates

    def replays(self, request: str) -> None:
        """The reply is that of an earlier request, and says so by its id."""
        self._reply[0] = (b"x-request-id", request.encode())
        self._noted["replays"] = request
        self._metrics.idempotent("replayed")

    def kept(self, outcome: str) -> None:
        """What came of a request under an idempotency key: `kept`, `gone`, `lost` or `freed`."""
        self._noted["reply"] = outcome
        self._metrics.idempotent(outcome)

    def headers(self, own: Headers) -> Headers:
        """Return the reply's headers: `own` and those that every reply has."""
        spent_ms = (time.perf_counter() - self._began) * 1000
        return [*own, *self._reply, (b"openai-processing-ms", b"%d" % spent_ms)]

    def received(self) -> None:
        """Note that a part of a stream arrived from the model server."""
        now = time.perf_counter()
        if self._last is None:
            self._metrics.first_token(self._model).observe(now - self._began)
            self._noted["first_token_ms"] = round((now - self._began) * 1000, 1)
            self._gaps = self._metrics.inter_token(self._model)
        else:
            self._gaps.observe(now - self._last)
        self._last = now

    def upstream_failed(self, error: TokenyardError) -> None:
        self._metrics.upstream_failed(error.code or error.type)

    def refused(self, error: TokenyardError) -> None:
        self._metrics.refused(error.code or error.type)
        self._noted["error"] = error.code or error.type

    def settled(self, settled: Settled) -> None:
        claims, usage = settled.claims, settled.usage
        self._metrics.used(claims.organization, claims.model, usage)
        self._noted.update(
            attempt=claims.attempt,
            model=claims.model,
            outcome=settled.outcome.value,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )
        if claims.server:
            self._noted["server"] = claims.server

    def ended(self, status: int) -> None:
        seconds = time.perf_counter() - self._began
        self._metrics.ended(self._endpoint, status, seconds)
        self._log.add(
            {
                "time": self._at_s,
                "request": self.request_id,
                "endpoint": self._endpoint,
                "status": status,
                "ms": int(seconds * 10_000) / 10,
                **self._noted,
            }
        )
