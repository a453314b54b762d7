"""The paid endpoints' part of the OpenAPI description, made of the table that serves them."""

import msgspec
from fastapi import FastAPI

from tokenyard.core.errors import (
    Conflict,
    Gone,
    IdempotencyKeyReused,
    InvalidRequest,
    ModelFailed,
    ModelNotFound,
    PayloadTooLarge,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    TimedOut,
    TokenyardError,
    Unauthenticated,
    Unavailable,
    UpstreamFailed,
)
from tokenyard.gateway.endpoints.anthropic.messages import CountTokensBody
from tokenyard.gateway.endpoints.invalid_body import Json
from tokenyard.gateway.endpoints.responses.conversation import InputTokensBody
from tokenyard.gateway.endpoints.responses.items import INPUT_TYPES, UNTYPED
from tokenyard.gateway.endpoints.table import ENDPOINTS, Endpoint

_REF = "#/components/schemas/{name}"
_API_KEY = "ApiKey"
_ERRORS: tuple[type[TokenyardError], ...] = (
    *(InvalidRequest, Unauthenticated, PermissionDenied, ModelNotFound, PayloadTooLarge),
    *(Conflict, Gone, IdempotencyKeyReused),
    *(RateLimited, QuotaExceeded, ModelFailed, UpstreamFailed, Unavailable, TimedOut),
)
_HEADERS = (
    (
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x20-\x7e]+$"},
        "Of your own making. A request with a key runs to its end also when you leave, and is charged once; sent again "
        "within 24 hours, by any key of the project, it gives the same reply, with `idempotent-replayed: true`.",
    ),
    (
        "Last-Event-ID",
        {"type": "string", "pattern": "^[0-9]{1,9}$"},
        "With `stream` and an `Idempotency-Key`: the `id` of the last event that you have. The reply goes on after it.",
    ),
)


def describe_paid_endpoints(app: FastAPI) -> None:
    """Let `app` describe them beside its own routes."""
    own = app.openapi

    def openapi() -> Json:
        described = app.openapi_schema is not None
        document = own()
        if not described:
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(schemas())
            components.setdefault("securitySchemes", {}).setdefault(_API_KEY, {"type": "http", "scheme": "bearer"})
            for endpoint in ENDPOINTS:
                document["paths"].setdefault(endpoint.path, {})["post"] = _operation(endpoint)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend a description


def schemas() -> Json:
    """Return the schemas of all bodies, by name; fields that are always refused are not there."""
    types = [
        type_
        for endpoint in ENDPOINTS
        for type_ in (endpoint.body, endpoint.reply, endpoint.event, endpoint.errors.schema)
        if type_ is not None
    ]
    _, components = msgspec.json.schema_components(
        [*types, *INPUT_TYPES, CountTokensBody, InputTokensBody], ref_template=_REF
    )
    for type_ in UNTYPED:
        components[type_.__name__]["required"].remove("type")
        components[type_.__name__]["properties"]["type"]["enum"].append(None)
    for schema in components.values():
        for name, field in list(schema.get("properties", {}).items()):
            if field.get("type") == "null":
                del schema["properties"][name]
            elif "default" in field and field["default"] is None:
                del field["default"]
    return components


def _operation(endpoint: Endpoint) -> Json:
    reasons: dict[int, list[str]] = {}
    for error in _ERRORS:
        reasons.setdefault(error.status, []).append((error.__doc__ or "").splitlines()[0])
    refusals = {
        str(status): {"description": " ".join(lines), "content": _json(endpoint.errors.schema)}
        for status, lines in reasons.items()
    }
    answer = {"description": "The answer.", "content": _json(endpoint.reply)}
    if endpoint.event is not None:
        answer = {
            "description": f"The answer; with `stream`, {endpoint.stream}.",
            "content": _json(endpoint.reply) | {"text/event-stream": {"itemSchema": _event(endpoint)}},
        }
    return {
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "tags": ["inference"],
        "security": [{_API_KEY: []}],
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": schema, "description": description}
            for name, schema, description in _HEADERS
        ],
        "requestBody": {"required": True, "content": _json(endpoint.body)},
        "responses": {"200": answer, **refusals},
    }


def _event(endpoint: Endpoint) -> Json:
    """Return the schema of one server-sent event, as OpenAPI 3.2 has it and FastAPI writes it, too."""
    text: Json = {"type": "string"}
    json: Json = {**text, "contentMediaType": "application/json"}
    data: Json = {**json, "contentSchema": _schema(endpoint.event)}
    if endpoint.ends_with_done:
        told = {"anyOf": [_schema(endpoint.event), _schema(endpoint.errors.schema)]}
        data = {"anyOf": [{**json, "contentSchema": told}, {"const": "[DONE]"}]}
    return {"type": "object", "required": ["data"], "properties": {"data": data, "event": text, "id": text}}


def _json(type_: type) -> Json:
    return {"application/json": {"schema": _schema(type_)}}


def _schema(type_: object) -> Json:
    (schema,), _ = msgspec.json.schema_components([type_], ref_template=_REF)
    return schema
