"""Says what is wrong with an answer as such, whatever was asked: its status, or a shape that its protocol has not."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, ENDPOINTS, MESSAGES, RESPONSES, Endpoint

# Of 5xx ours to give: the model is overloaded, with a time to come back; and a request that breaks what serves it.
OVERLOADED, POISON = 503, 500
REFUSED = range(400, 500)
DONE = b"[DONE]"
_DATA = b"data: "
_PAID = {endpoint.path: endpoint for endpoint in ENDPOINTS}
_LAST_EVENTS: Mapping[str, tuple[str, ...]] = {
    CHAT.path: (),
    COMPLETIONS.path: (),
    MESSAGES.path: ("message_stop",),
    RESPONSES.path: ("response.completed", "response.incomplete"),
}
"""How a stream ends that did not fail: by an event of such a type, or where there is none by `[DONE]`."""
_ANTHROPIC_SERVER_ERRORS = ("api_error", "overloaded_error", "timeout_error")


def problem_of(path: str, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """Return what no client should ever see; `headers` have lower case."""
    if status == OVERLOADED and "retry-after" not in headers:
        return "overloaded without a time to come back"
    if status not in (200, OVERLOADED, POISON, *REFUSED):
        return f"a status that is not ours to give: {body[:300]!r}"
    endpoint = _PAID.get(path)
    if status == 200 and headers.get("content-type", "").startswith("text/event-stream"):
        return "a stream of what has none" if endpoint is None else _problem_of_events(endpoint, body)
    try:
        answer = json.loads(body)
    except ValueError:
        return f"no JSON: {body[:300]!r}"
    if status != 200:
        return problem_of_error(path, status, answer)
    return None if endpoint is None else _unlike(endpoint.reply, body)


def _problem_of_events(endpoint: Endpoint, body: bytes) -> str | None:
    events = list(_data(body))
    if not events:
        return "a stream without any event"
    last = _LAST_EVENTS[endpoint.path]
    if not last and events.pop() != DONE:
        return f"a stream that was cut off: {body[-300:]!r}"
    if last and json.loads(events[-1]).get("type") not in last:
        return f"a stream that was cut off: {events[-1][:300]!r}"
    return next((f"within a stream, {wrong}" for event in events if (wrong := _unlike(endpoint.event, event))), None)


def _data(body: bytes) -> Iterator[bytes]:
    """Yield the data of each event."""
    for event in body.split(b"\n\n"):
        yield from (line.removeprefix(_DATA) for line in event.split(b"\n") if line.startswith(_DATA))


def _unlike(type_: Any, body: bytes) -> str | None:
    try:
        msgspec.json.decode(body, type=type_)
    except msgspec.MsgspecError as error:
        return f"not an answer: {error}: {body[:300]!r}"
    return None


def problem_of_error(path: str, status: int, answer: Any) -> str | None:
    """Return what is wrong with the body of an error: its shape, or what it says of whose fault it is."""
    anthropic = path == MESSAGES.path or path.startswith(f"{MESSAGES.path}/")
    error = answer.get("error") if isinstance(answer, dict) else None
    known = {"type", "message", "details"} if anthropic else {"message", "type", "param", "code"}
    if not isinstance(error, dict) or not {"message", "type"} <= set(error) <= known:
        return f"not an error of its protocol: {answer!r}"
    if not anthropic and set(error) != known:
        return f"not OpenAI's error: {answer!r}"
    if anthropic and (set(answer) != {"type", "error", "request_id"} or answer["type"] != "error"):
        return f"not Anthropic's error: {answer!r}"
    if not (error["message"] and isinstance(error["message"], str)) or not isinstance(error["type"], str):
        return f"an error that says nothing: {answer!r}"
    server_error = error["type"] in _ANTHROPIC_SERVER_ERRORS if anthropic else error["type"] == "server_error"
    return None if server_error == (status >= 500) else f"a type that does not fit {status}: {answer!r}"
