"""The served description says of every paid endpoint what it takes and what it answers: all of it, and truly."""

import json
from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator

from support.gateway_stack import GatewayStack
from support.request_bodies import LEAST
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import SamplingDefaults
from tokenyard.gateway.endpoints.anthropic.unpaid_replies import errors_at
from tokenyard.gateway.endpoints.openapi import schemas
from tokenyard.gateway.endpoints.responses.body import LOGPROBS
from tokenyard.gateway.endpoints.responses.items import UNTYPED, ItemReference
from tokenyard.gateway.endpoints.table import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    MESSAGES,
    RESPONSES,
    Endpoint,
)

COMPONENTS = schemas()
_RESULT = {"type": "tool_result", "tool_use_id": "x", "content": [{"text": "x"}]}
_OUTPUT = {"type": "function_call_output", "call_id": "x", "output": [{"text": "x"}]}
STATUSES = {"200", "400", "401", "403", "404", "409", "410", "413", "422", "429", "500", "502", "503", "504"}
each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation)
each_field = pytest.mark.parametrize(
    ("endpoint", "name"),
    [(endpoint, name) for endpoint in ENDPOINTS for name in endpoint.body.__struct_fields__],
    ids=lambda value: value if isinstance(value, str) else value.operation,
)


def _properties(endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = COMPONENTS[endpoint.body.__name__]["properties"]
    return found


async def test_the_gateways_description_is_valid_openapi(gateway: GatewayStack) -> None:
    document = gateway.app.control_plane.openapi()
    assert document["openapi"].startswith("3.1")
    OpenAPI.model_validate(document)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for ref in _refs(document):
        assert ref.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    assert gateway.app.control_plane.openapi() == document


@each_endpoint
async def test_every_paid_endpoint_is_described(gateway: GatewayStack, endpoint: Endpoint) -> None:
    operation = gateway.app.control_plane.openapi()["paths"][endpoint.path]["post"]
    assert operation["security"]
    assert set(operation["responses"]) == STATUSES
    body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert body.endswith(f"/{endpoint.body.__name__}")
    answer = operation["responses"]["200"]["content"]
    assert answer["application/json"]["schema"]["$ref"].endswith(endpoint.reply.__name__)
    if endpoint.event is None:
        assert "text/event-stream" not in answer
    else:
        data = answer["text/event-stream"]["itemSchema"]["properties"]["data"]
        events = {one.__name__ for one in get_args(endpoint.event) or (endpoint.event,)}
        if endpoint in (CHAT, COMPLETIONS):
            data, done = data["anyOf"]
            assert done == {"const": "[DONE]"}
            events.add(endpoint.errors.schema.__name__)
        told = data["contentSchema"].get("anyOf", [data["contentSchema"]])
        assert {one["$ref"].rpartition("/")[2] for one in told} == events
    refusal = operation["responses"]["400"]["content"]["application/json"]["schema"]["$ref"]
    assert refusal.endswith(f"/{endpoint.errors.schema.__name__}")


async def test_errors_are_described_in_the_shape_of_their_protocol(gateway: GatewayStack) -> None:
    described = gateway.app.control_plane.openapi()["paths"]
    for path, operations in described.items():
        shape = errors_at(path.encode()).schema.__name__
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if not status.startswith("2"):
                    told = response["content"]["application/json"]["schema"]["$ref"]
                    assert told == f"#/components/schemas/{shape}", (path, status)


@each_endpoint
def test_a_field_is_described_or_refused(endpoint: Endpoint) -> None:
    refused = {name for name, type_ in get_type_hints(endpoint.body).items() if type_ is NoneType}
    assert set(_properties(endpoint)) == set(endpoint.body.__struct_fields__) - refused
    assert set(endpoint.body.refused) <= refused


@each_field
def test_a_described_field_is_accepted_and_another_is_refused_by_name(endpoint: Endpoint, name: str) -> None:
    schema = _properties(endpoint).get(name)
    if schema is None:
        with pytest.raises(InvalidRequest) as refused:
            _parse(endpoint, name, "x")
        assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")
        return
    for value in _samples(schema):
        assert Draft202012Validator({**schema, "components": {"schemas": COMPONENTS}}).is_valid(value)
        _parse(endpoint, name, value)
    for value in _outside(schema):
        with pytest.raises(InvalidRequest) as wrong:
            _parse(endpoint, name, value)
        # So many of these may be too much for a body whatever they are.
        assert (wrong.value.param or "").startswith(name) or wrong.value.code == "too_many_values"


@pytest.mark.parametrize("item", UNTYPED, ids=lambda item: item.__name__)
@pytest.mark.parametrize("left_out", [{}, {"type": None}], ids=repr)
def test_a_type_that_may_be_left_out_may_be_null(item: type[msgspec.Struct], left_out: dict[str, None]) -> None:
    schema = {**COMPONENTS[item.__name__], "components": {"schemas": COMPONENTS}}
    fields = {"id": "msg_1"} if item is ItemReference else {"role": "user", "content": "x"}
    assert Draft202012Validator(schema).is_valid({**fields, **left_out})
    assert not Draft202012Validator(schema).is_valid({**fields, "type": "reasoning"})


@pytest.mark.parametrize("endpoint", [COMPLETIONS, EMBEDDINGS], ids=lambda endpoint: endpoint.operation)
@pytest.mark.parametrize("empty", ["", [], [""], [[]]], ids=repr)
def test_no_input_may_be_empty(endpoint: Endpoint, empty: object) -> None:
    assert not Draft202012Validator(_properties(endpoint)[endpoint.input]).is_valid(empty)
    with pytest.raises(InvalidRequest):
        _parse(endpoint, endpoint.input, empty)


@pytest.mark.parametrize(
    ("endpoint", "field", "where"),
    [
        (MESSAGES, {"system": [{"text": "x"}]}, "system[0].type"),
        (MESSAGES, {"output_config": {"format": {"schema": {}}}}, "output_config.format.type"),
        (MESSAGES, {"messages": [{"role": "user", "content": [_RESULT]}]}, "messages[0].content[0].content[0].type"),
        (RESPONSES, {"tools": [{"name": "f"}]}, "tools[0].type"),
        (RESPONSES, {"tool_choice": {"name": "f"}}, "tool_choice.type"),
        (RESPONSES, {"input": [_OUTPUT]}, "input[0].output[0].type"),
    ],
    ids=lambda value: value.operation if isinstance(value, Endpoint) else None,
)
def test_a_type_is_needed_where_it_is_described_as_such(
    endpoint: Endpoint, field: dict[str, object], where: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        endpoint.parse(json.dumps({"model": "m", **LEAST[endpoint.path], **field}).encode())
    assert refused.value.param == where


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS], ids=lambda endpoint: endpoint.operation)
@pytest.mark.parametrize("name", SamplingDefaults.__struct_fields__)
def test_what_a_model_file_may_state_a_client_may_send(endpoint: Endpoint, name: str) -> None:
    stated = msgspec.json.schema(SamplingDefaults)["$defs"]["SamplingDefaults"]["properties"][name]
    for value in _samples({"anyOf": [one for one in stated["anyOf"] if "exclusiveMinimum" not in one]}):
        _parse(endpoint, name, value)


def _parse(endpoint: Endpoint, name: str, value: object) -> None:
    """Send a field in the company that it needs."""
    beside: dict[str, object] = {}
    if name == "stream_options":
        beside = {"stream": True}
    elif name == "top_logprobs":
        beside = {"include": [LOGPROBS]} if endpoint is RESPONSES else {"logprobs": True}
    elif name == "metadata" and "store" in endpoint.body.__struct_fields__:
        beside = {"store": True}
    elif name == "best_of" and isinstance(value, int):
        beside = {"n": value}
    elif name == "max_tokens" and value == 0 and "echo" in endpoint.body.__struct_fields__:
        beside = {"echo": True}
    body = {"model": "m", **LEAST[endpoint.path], name: value, **beside}
    endpoint.parse(json.dumps(body).encode())


def _samples(schema: dict[str, Any]) -> Iterator[object]:
    """Yield values that `schema` describes, among them its limits."""
    if "$ref" in schema:
        yield from _samples(COMPONENTS[schema["$ref"].rpartition("/")[2]])
    elif "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from _samples(one)
    elif "enum" in schema:
        yield from schema["enum"]
    elif schema.get("type") in ("integer", "number"):
        yield from (schema["minimum"], schema["maximum"])
    elif schema.get("type") == "array":
        yield [next(_samples(schema["items"]))] * schema.get("minItems", 1)
    elif "properties" in schema:
        yield {name: next(_samples(one)) for name, one in schema["properties"].items()}
    elif schema.get("type") == "object":
        yield {"5": next(_samples(schema.get("additionalProperties", {})))}
    else:
        yield from {"string": ("x",), "boolean": (True, False), "null": (None,)}.get(schema.get("type", ""), (1,))


def _outside(schema: dict[str, Any]) -> Iterator[object]:
    """Yield values of the right type outside the limits."""
    for one in schema.get("anyOf", (schema,)):
        if one.get("type") in ("integer", "number"):
            yield from (one["minimum"] - 1, one["maximum"] + 1)
        elif one.get("type") == "array" and "maxItems" in one:
            yield [next(_samples(one["items"]))] * (one["maxItems"] + 1)


def _refs(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for one in node.values():
            yield from _refs(one)
    elif isinstance(node, list):
        for one in node:
            yield from _refs(one)
