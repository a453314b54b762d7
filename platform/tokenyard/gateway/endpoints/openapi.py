"""The paid endpoints' part of the OpenAPI description, made of the table that serves them."""

from typing import Any

import msgspec
from fastapi import FastAPI

from tokenyard.core.errors import (
    InvalidRequest,
    ModelNotFound,
    PayloadTooLarge,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    TokenyardError,
    Unauthenticated,
    Unavailable,
    UpstreamFailed,
)
from tokenyard.gateway.endpoints.endpoint import Endpoint
from tokenyard.gateway.endpoints.fields import Json
from tokenyard.gateway.endpoints.table import ENDPOINTS

_REF = "#/components/schemas/"
_API_KEY = "ApiKey"
_ERRORS: tuple[type[TokenyardError], ...] = (
    *(InvalidRequest, Unauthenticated, PermissionDenied, ModelNotFound, PayloadTooLarge),
    *(RateLimited, QuotaExceeded, UpstreamFailed, Unavailable),
)


class ErrorDetail(msgspec.Struct):
    """What went wrong. `param` names the field that is to blame, `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct):
    """The one shape of every error."""

    error: ErrorDetail


def describe_paid_endpoints(app: FastAPI) -> None:
    """Let `app` describe them beside its own routes."""
    own = app.openapi

    def openapi() -> Json:
        described = app.openapi_schema is not None
        document = own()
        if not described:
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(schemas())
            components.setdefault("securitySchemes", {})[_API_KEY] = {"type": "http", "scheme": "bearer"}
            document["paths"].update({endpoint.path: {"post": _operation(endpoint)} for endpoint in ENDPOINTS})
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend a description


def schemas() -> Json:
    """Return the schemas of all bodies, by name."""
    documented = {endpoint.path: documented_fields(endpoint) for endpoint in ENDPOINTS}
    types = [type_ for fields in documented.values() for type_ in fields.values()]
    replies = [type_ for endpoint in ENDPOINTS for type_ in (endpoint.reply, endpoint.event)]
    found, components = msgspec.json.schema_components([*types, *replies, ErrorReply], ref_template=f"{_REF}{{name}}")
    field_schemas = iter(found)
    for endpoint in ENDPOINTS:
        properties = {name: _property(endpoint, name, next(field_schemas)) for name in documented[endpoint.path]}
        components[f"{endpoint.name}Request"] = {
            "type": "object",
            "properties": properties,
            "required": ["model", endpoint.input],
            "additionalProperties": False,
        }
    return components


def documented_fields(endpoint: Endpoint) -> dict[str, Any]:
    """Return the types of the fields that the endpoint takes; those it always refuses are not there."""
    return {name: field.type for name, field in endpoint.fields.items() if field.type is not None}


def _property(endpoint: Endpoint, name: str, schema: Json) -> Json:
    # As with OpenAI, null means the same as leaving a field out.
    optional = schema if name in ("model", endpoint.input) else {"anyOf": [schema, {"type": "null"}]}
    description = endpoint.fields[name].description
    return {"description": description, **optional} if description else optional


def _operation(endpoint: Endpoint) -> Json:
    reasons: dict[int, list[str]] = {}
    for error in _ERRORS:
        reasons.setdefault(error.status, []).append((error.__doc__ or "").splitlines()[0])
    refusals = {
        str(status): {"description": " ".join(lines), "content": _json(ErrorReply.__name__)}
        for status, lines in reasons.items()
    }
    events = {"text/event-stream": {"schema": {"$ref": _REF + endpoint.event.__name__}}}
    answer = {
        "description": "The answer; with `stream`, events whose `data` is an object each, and then `[DONE]`. An event "
        "that holds an `error` ends a stream that failed.",
        "content": {**_json(endpoint.reply.__name__), **events},
    }
    return {
        "operationId": f"create{endpoint.name}",
        "summary": endpoint.summary,
        "tags": ["inference"],
        "security": [{_API_KEY: []}],
        "requestBody": {"required": True, "content": _json(f"{endpoint.name}Request")},
        "responses": {"200": answer, **refusals},
    }


def _json(schema_name: str) -> Json:
    return {"application/json": {"schema": {"$ref": _REF + schema_name}}}
