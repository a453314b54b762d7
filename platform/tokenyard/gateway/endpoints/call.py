"""Turns a request body into a call: checked, rebuilt from the endpoint's table, ready to be priced."""

from typing import Any

import msgspec
import orjson

from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.parameters import invalid, missing, unknown, unsupported
from tokenyard.gateway.endpoints.table import Endpoint


class Call(msgspec.Struct, frozen=True):
    """One request for tokens. `body` holds only allowed fields; the gateway's own are added when it is sent.

    `max_tokens` is None where the client set none; `choices` is how many completions each prompt may cost.
    """

    endpoint: Endpoint
    model: str
    body: dict[str, Any]
    stream: bool
    include_usage: bool
    choices: int
    max_tokens: int | None

    @property
    def input(self) -> Any:
        """The messages or the prompt."""
        return self.body[self.endpoint.input]


def parse_call(endpoint: Endpoint, raw: bytes) -> Call:
    """Read and check a request body.

    Raises:
        InvalidRequest: not JSON, or a parameter is missing, unknown or wrong; `param` names it.
    """
    body = _checked(endpoint, _json(raw))
    model = body.get("model")
    if not model:
        raise missing("model")
    if endpoint.input not in body:
        raise missing(endpoint.input)
    stream = bool(body.pop("stream", False))
    options = body.pop("stream_options", None)
    if options is not None and not stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    return Call(
        endpoint=endpoint,
        model=model,
        body=body,
        stream=stream,
        include_usage=bool(options and options["include_usage"]),
        choices=_choices(body),
        max_tokens=_max_tokens(endpoint, body),
    )


def _json(raw: bytes) -> dict[str, Any]:
    try:
        given = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            "We could not parse the JSON body of your request. The API expects a JSON payload, but what was sent was "
            "not valid JSON."
        ) from error
    if not isinstance(given, dict):
        raise InvalidRequest("The JSON body of your request must be an object.")
    return given


def _checked(endpoint: Endpoint, given: dict[str, Any]) -> dict[str, Any]:
    fields = endpoint.fields
    body = {}
    for name, value in given.items():
        check = fields.get(name)
        if check is None:
            raise unknown(name[:64])
        if value is not None and (sent := check(name, value)) is not None:
            body[name] = sent
    return body


def _choices(body: dict[str, Any]) -> int:
    n: int = body.get("n", 1)
    best_of = body.pop("best_of", n)
    if best_of < n:
        raise invalid("best_of", f"it must be at least 'n', which is {n}.")
    if best_of > n:
        raise unsupported("best_of", "it is supported only at the value of 'n'.")
    return n


def _max_tokens(endpoint: Endpoint, body: dict[str, Any]) -> int | None:
    given = {name: body.pop(name) for name in endpoint.max_tokens_fields if name in body}
    if len(given) > 1:
        raise InvalidRequest(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", param="max_tokens"
        )
    for name, value in given.items():
        if value == 0 and not body.get("echo"):
            raise invalid(name, "0 is supported only with 'echo'.")
        return int(value)
    return endpoint.default_max_tokens
