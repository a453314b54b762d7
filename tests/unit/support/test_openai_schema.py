"""The checker that contract tests trust: it must see a missing, a wrong and an unknown field, at any depth."""

from typing import Any

import pydantic
import pytest
from openai.types.chat import ChatCompletion

from support.openai_schema import ApiDescription, check_openai_type

MESSAGE = {"role": "assistant", "content": "hi", "refusal": None}
CHOICE = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": MESSAGE}
REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [CHOICE],
}
DESCRIPTION = ApiDescription(
    {
        "components": {
            "schemas": {
                "Thing": {
                    "type": "object",
                    "required": ["id", "parts"],
                    "properties": {
                        "id": {"type": "string"},
                        "parts": {"type": "array", "items": {"oneOf": [{"$ref": "#/components/schemas/Text"}, {}]}},
                        "free": {"type": "object", "additionalProperties": True},
                        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                        "both": {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
                    },
                },
                "Text": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
            }
        }
    }
)


def test_a_reply_of_openai_passes() -> None:
    check_openai_type(REPLY, ChatCompletion)


@pytest.mark.parametrize("extra", [{"metrics": None}, {"choices": [{**CHOICE, "token_ids": None}]}])
def test_a_field_that_the_client_does_not_have(extra: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=r"metrics|choices\[0\]\.token_ids"):
        check_openai_type({**REPLY, **extra}, ChatCompletion)


@pytest.mark.parametrize("wrong", [{"created": "1"}, {"object": "list"}, {"choices": None}])
def test_a_wrong_field_of_the_client(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        check_openai_type({**REPLY, **wrong}, ChatCompletion)


def test_a_value_of_the_schema_passes() -> None:
    value = {"id": "x", "parts": [{"text": "a"}], "free": {"any": {"thing": 1}}, "note": None, "both": {"a": 1, "b": 2}}
    DESCRIPTION.check(value, "Thing")


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"parts": []}, "'id' is a required property"),
        ({"id": 1, "parts": []}, r"Thing\.id"),
        ({"id": "x", "parts": [], "more": 1}, r"Thing\.more"),
        ({"id": "x", "parts": [{"text": "a", "more": 1}]}, r"Thing\.parts\[0\]\.more"),
        ({"id": "x", "parts": [], "both": {"a": 1, "c": 1}}, r"Thing\.both\.c"),
    ],
)
def test_a_value_that_differs_from_the_schema(value: dict[str, Any], where: str) -> None:
    with pytest.raises(AssertionError, match=where):
        DESCRIPTION.check(value, "Thing")
