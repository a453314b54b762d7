"""What may be left out of a conversation that is too long, and in which order."""

import pytest

from tokenyard.gateway.endpoints.chat_messages import CalledFunction, ChatMessage, ToolCall
from tokenyard.gateway.endpoints.responses.truncation import oldest_of


def said(*roles: str) -> list[ChatMessage]:
    """Return messages: `calls ab` calls a and b, `output a` is what a returned; other words are roles."""
    return [_message(*role.split()) for role in roles]


def _message(role: str, calls: str = "") -> ChatMessage:
    if role == "output":
        return ChatMessage("tool", "x", tool_call_id=calls)
    if role == "calls":
        return ChatMessage("assistant", tool_calls=[ToolCall(call, CalledFunction("f", "{}")) for call in calls])
    return ChatMessage(role, "x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("roles", "oldest"),
    [
        (["user"], []),
        (["system"], []),
        (["user", "assistant", "user"], [[0], [1]]),
        (["system", "user", "system", "user", "system"], [[1]]),
        (["user", "calls a", "output a", "user"], [[0], [1, 2]]),
        (["user", "calls ab", "output b", "output a", "assistant", "user"], [[0], [1, 2, 3], [4]]),
        (["user", "calls a", "output a"], [[0]]),
        (["user", "calls a", "user", "output a"], [[0], [2]]),
        (["user", "calls a", "user", "output a", "user"], [[0], [1, 3], [2]]),
        (["output z", "user"], [[0]]),
        (["calls a", "output a", "calls a", "output a", "user"], [[0, 1], [2, 3]]),
    ],
    ids=str,
)
def test_the_oldest_goes_first_and_calls_go_with_their_outputs(roles: list[str], oldest: list[list[int]]) -> None:
    assert oldest_of(said(*roles)) == oldest
