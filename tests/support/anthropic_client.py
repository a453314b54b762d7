"""What tests with the real `anthropic` client say and hear."""

from typing import Any

import anthropic
from anthropic.types import MessageParam, ToolParam

HI: list[MessageParam] = [{"role": "user", "content": "say hello to me"}]
WEATHER: ToolParam = {
    "name": "weather",
    "description": "Tells the weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def call(index: int, name: str, *arguments: str) -> list[dict[str, Any]]:
    """Return the deltas of one tool call, its arguments in pieces."""
    first = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
    more = [{"index": index, "function": {"arguments": piece}} for piece in arguments]
    return [{"content": None, "tool_calls": [part]} for part in (first, *more)]


def error_of(refused: anthropic.APIStatusError) -> dict[str, Any]:
    """Return the reply's body, which is to be an error in Anthropic's shape, with the reply's own id."""
    body = refused.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["request_id"] == refused.response.headers["request-id"]
    assert set(body["error"]) <= {"type", "message", "details"}
    return body
