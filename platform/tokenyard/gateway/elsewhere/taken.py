"""What a server elsewhere takes, and the body that goes to it: nothing of ours stands in it, nor of the tenant's."""

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

import msgspec

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.core.model_files.sources import ServerSource
from tokenyard.core.models import BaseModel
from tokenyard.core.usage import DEFAULT_TIER
from tokenyard.gateway.endpoints.body import PaidBody
from tokenyard.gateway.endpoints.invalid_body import Json
from tokenyard.gateway.endpoints.table import Endpoint

CHAT = "/v1/chat/completions"
UPSTREAMS = frozenset({CHAT, "/v1/completions"})


def check_taken(endpoint: Endpoint, body: PaidBody, model: BaseModel, server: ServerSource) -> None:
    """Refuse by name what the server does not take; raises `InvalidRequest`."""
    if endpoint.upstream not in UPSTREAMS:
        raise InvalidRequest(f"This model is not served at {endpoint.path}.", param="model")
    wanted = model.default_max_tokens if body.wanted_tokens is None else body.wanted_tokens
    sent = body.sent(model, wanted)
    if "continue_final_message" in sent and not server.vllm:
        message = "This model does not continue an answer that was begun: the last message must be a user's."
        raise InvalidRequest(message, param="messages", code="unsupported_parameter")
    for name in _asked(sent):
        if name in server.refuses:
            param = "response_format" if name == "json_schema" else name
            raise InvalidRequest(f"This model does not take '{name}'.", param=param, code="unsupported_parameter")


def check_tier(body: PaidBody) -> None:
    """Refuse a service tier of a model that is only served elsewhere: whose turn it is there is not decided here."""
    if body.tier != DEFAULT_TIER:
        message = f"This model is not served by the service tier '{body.tier}'."
        raise InvalidRequest(message, param="service_tier", code="unsupported_value")


def body_elsewhere(
    body: PaidBody, model: BaseModel, server: ServerSource, max_tokens: int, end_user: str | None
) -> bytes:
    """Return the body as the server takes it."""
    sent: Json = {**body.sent(model, max_tokens), "model": server.model}
    if "messages" in sent:
        sent[server.limit_as] = sent.pop("max_tokens")
    if body.stream:
        sent["stream_options"] = {"include_usage": True}
        if server.vllm:
            sent["stream_options"]["continuous_usage_stats"] = True
    if end_user is not None:
        sent["user"] = end_user
    return msgspec.json.encode(sent)


def hashed_end_user(body: PaidBody, organization: OrganizationId, secret: bytes) -> str | None:
    """Return what stands for the client's own user where it names one: the same each time, and telling nothing."""
    if not body.end_user:
        return None
    named = f"end-user:{organization}:{body.end_user}".encode("utf-8", "replace")
    return hmac.new(secret, named, hashlib.sha256).hexdigest()[:32]


def _asked(sent: dict[str, Any]) -> Iterator[str]:
    yield from sent
    wanted = sent.get("response_format")
    if isinstance(wanted, dict) and isinstance(wanted.get("type"), str):
        yield wanted["type"]
