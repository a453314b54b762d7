"""Which messages of a conversation may be left out where it is too long."""

from collections.abc import Sequence

from tokenyard.gateway.endpoints.chat_messages import ChatMessage


def oldest_of(messages: Sequence[ChatMessage]) -> list[list[int]]:
    """Return the places of messages that may be left out, those together that belong together, the oldest first.

    Instructions stay, and so does what was said last. Calls and their outputs go together.
    """
    together: list[list[int]] = []
    callers: dict[str, list[int]] = {}
    for place, message in enumerate(messages):
        if message.role == "system":
            continue
        called = callers.get(message.tool_call_id or "") if message.role == "tool" else None
        if called is not None:
            called.append(place)
            continue
        together.append([place])
        callers.update((call.id, together[-1]) for call in message.tool_calls or ())
    last = max((places[-1] for places in together), default=0)
    return [places for places in together if places[-1] != last]
