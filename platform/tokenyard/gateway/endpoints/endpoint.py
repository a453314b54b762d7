"""What a paid endpoint is, and how a request body becomes a request: checked, rebuilt from the endpoint's fields."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import orjson

from tokenyard.core.catalog import BaseModel
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.fields import Json, RequestField, invalid, missing, unknown, unsupported
from tokenyard.gateway.endpoints.usage import StreamUsage


class Prompt(msgspec.Struct, frozen=True):
    """One prompt as it is counted: texts, and the tokens that come on top of theirs."""

    texts: list[str]
    tokens: int

    @property
    def bound(self) -> int:
        """The number of tokens that the prompt cannot exceed: a token is at least one byte of text."""
        return sum(len(text.encode()) for text in self.texts) + self.tokens


@dataclass(frozen=True)
class Endpoint:
    """One paid endpoint.

    `input` is the required field that holds the prompt; `max_tokens_fields` are the names that the bound on the
    completion goes by, and without one it is `default_max_tokens`, or the model's own where that is None.
    `check` refuses what only some models do; `prompts` tells what a checked body makes the model read.
    `reply` and `event` are the types of a whole answer and of one event of a stream; `read_usage` and `stream_usage`
    read what they used.
    """

    path: str
    name: str
    summary: str
    fields: Mapping[str, RequestField]
    input: str
    max_tokens_fields: tuple[str, ...]
    check: Callable[[Json, BaseModel], None]
    prompts: Callable[[Json, BaseModel], list[Prompt]]
    reply: type
    event: type
    read_usage: Callable[[bytes], TokenUsage]
    stream_usage: type[StreamUsage]
    default_max_tokens: int | None = None


class InferenceRequest(msgspec.Struct, frozen=True):
    """One request for tokens. `body` holds only allowed fields; the gateway's own are added when it is sent.

    `max_tokens` is None where neither client nor endpoint set one; `choices` is how many completions each prompt may
    cost.
    """

    endpoint: Endpoint
    model: str
    body: Json
    stream: bool
    include_usage: bool
    choices: int
    max_tokens: int | None


def parse_request(endpoint: Endpoint, raw: bytes) -> InferenceRequest:
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
    return InferenceRequest(
        endpoint=endpoint,
        model=model,
        body=body,
        stream=stream,
        include_usage=bool(options and options["include_usage"]),
        choices=_choices(body),
        max_tokens=_max_tokens(endpoint, body),
    )


def _json(raw: bytes) -> Json:
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


def _checked(endpoint: Endpoint, given: Json) -> Json:
    fields = endpoint.fields
    body = {}
    for name, value in given.items():
        field = fields.get(name)
        if field is None:
            raise unknown(name[:64])
        if value is not None and (sent := field.check(name, value)) is not None:
            body[name] = sent
    return body


def _choices(body: Json) -> int:
    n: int = body.get("n", 1)
    best_of = body.pop("best_of", n)
    if best_of < n:
        raise invalid("best_of", f"it must be at least 'n', which is {n}.")
    if best_of > n:
        raise unsupported("best_of", "it is supported only at the value of 'n'.")
    return n


def _max_tokens(endpoint: Endpoint, body: Json) -> int | None:
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
