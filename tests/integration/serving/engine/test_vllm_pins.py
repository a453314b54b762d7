"""What is changed in vLLM's response models and looked up in its registries, without an engine."""

import json

import pytest

pytest.importorskip("vllm")

from vllm.entrypoints.generate.base.protocol import DeltaMessage, DeltaToolCall
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
)
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, UsageInfo

from support.replica_caller import claims
from tokenyard_deployments.serving.engine import openai_replies
from tokenyard_deployments.serving.engine.attempt_tokens import CURRENT_ATTEMPT, AttemptTokens
from tokenyard_deployments.serving.engine.openai_replies import write_openai_replies
from tokenyard_deployments.serving.engine.pinned import UnknownEngine
from tokenyard_deployments.serving.engine.vllm_engine import UnknownParser, check_parsers


@pytest.fixture(autouse=True)
def changed() -> None:
    """Change the models; a second time changes nothing."""
    write_openai_replies()
    write_openai_replies()


def test_a_chunk_has_only_what_it_says() -> None:
    choice = ChatCompletionResponseStreamChoice(
        index=0, delta=DeltaMessage(content="a", reasoning="b"), finish_reason=None, stop_reason=None, token_ids=[1]
    )
    usage = UsageInfo(prompt_tokens=1, completion_tokens=2, total_tokens=3, completion_tokens_details=None)
    chunk = ChatCompletionStreamResponse(id="i", created=1, model="m", choices=[choice], usage=usage, prompt_text="p")
    assert json.loads(chunk.model_dump_json(exclude_unset=True)) == {
        "id": "i",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [("/v1/messages", {"stop_reason": "END"}), ("/v1/chat/completions", {})],
)
def test_a_stop_sequence_is_told_to_who_answers_a_message(endpoint: str, told: dict[str, str]) -> None:
    choice = ChatCompletionResponseStreamChoice(index=0, delta=DeltaMessage(), finish_reason="stop", stop_reason="END")
    token = CURRENT_ATTEMPT.set(AttemptTokens(claims(endpoint=endpoint)))
    try:
        assert choice.model_dump(exclude_unset=True) == {"index": 0, "delta": {}, "finish_reason": "stop", **told}
        choice.stop_reason = 2
        assert "stop_reason" not in choice.model_dump(exclude_unset=True)
    finally:
        CURRENT_ATTEMPT.reset(token)


def test_a_tool_call_is_told_without_nulls() -> None:
    delta = DeltaMessage(tool_calls=[DeltaToolCall(index=0, id=None, function={"name": None, "arguments": "{"})])
    assert delta.model_dump(exclude_unset=True) == {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}


def test_a_message_says_that_there_is_no_refusal() -> None:
    message = ChatMessage(role="assistant", content=None, reasoning="hidden")
    assert message.model_dump() == {"role": "assistant", "content": None, "refusal": None}


@pytest.mark.parametrize(
    ("kind", "code", "type_"),
    [("BadRequestError", 400, "invalid_request_error"), ("Internal Server Error", 500, "server_error")],
)
def test_an_error_is_openais(kind: str, code: int, type_: str) -> None:
    error = ErrorInfo(message="m", type=kind, code=code)
    assert error.code == code, "vLLM takes the status from it"
    assert error.model_dump() == {"message": "m", "type": type_, "param": None, "code": None}


def test_another_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = openai_replies._Shape(UsageInfo, ("prompt_tokens", "price"))
    monkeypatch.setattr(openai_replies, "_SHAPES", (unknown,))
    with pytest.raises(UnknownEngine, match="UsageInfo has no price"):
        write_openai_replies()


@pytest.mark.parametrize(
    ("argument", "field", "known"),
    [("tool_call_parser", "tools.parser", "hermes"), ("reasoning_parser", "reasoning.parser", "deepseek_r1")],
)
def test_an_unknown_parser_is_refused_with_those_there_are(argument: str, field: str, known: str) -> None:
    check_parsers({argument: known})
    with pytest.raises(UnknownParser, match=rf"`{field}` .*'nonsense'.*{known}"):
        check_parsers({argument: "nonsense"})


def test_a_model_needs_no_parser() -> None:
    check_parsers({})
