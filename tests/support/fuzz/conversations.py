"""Conversations in the form of each protocol, most of them with odd texts in them."""

from random import Random
from typing import Any

from support.fuzz import parameters, texts

Said = dict[str, Any]
_KNOWN_ROLES = ("user", "system", "assistant", "developer")
_ROLES = ("tool", "function", "", "\ud800", "User", None)


def chat_messages(random: Random) -> list[Any]:
    kind = random.random()
    if kind < 0.5:
        return [{"role": "user", "content": texts.plain(random, random.choice((1, 8, 40)))}]
    if kind < 0.9:
        return [_message(random) for _ in range(random.choice((1, 1, 2, 3, 8)))]
    if kind < 0.93:
        return [{"role": "user", "content": texts.plain(random, random.choice((1_500, 6_000, 9_000)))}]
    if kind < 0.96:
        return [{"role": random.choice(("user", "assistant")), "content": "a"}] * random.choice(
            (100, 1_000, 4_096, 4_097)
        )
    return random.choice(([], [[]], [None], ["hello"], [{}], [{"role": "user"}], [{"content": "x"}]))


def _message(random: Random) -> Said:
    message: Said = {
        "role": random.choice(_ROLES) if random.random() < 0.1 else random.choice(_KNOWN_ROLES),
        "content": texts.odd(random),
    }
    kind = random.random()
    if kind < 0.2:
        part = random.choice(
            ({"type": "text", "text": ""}, {"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"})
        )
        message["content"] = [part] * random.choice((1, 3, 3, 4_000, 4_096, parameters.CONTEXT))
    elif kind < 0.22:
        message["content"] = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}]
    elif kind < 0.4:
        call = {"id": texts.odd(random), "type": "function", "function": {"name": "f", "arguments": texts.odd(random)}}
        message |= {"role": "assistant", "tool_calls": [call] * random.choice((1, 128)), "content": None}
    elif kind < 0.5:
        message |= {random.choice(("name", "tool_call_id", "refusal", "weight")): texts.odd(random)}
    return message


def anthropic_messages(random: Random) -> list[Any]:
    kind = random.random()
    if kind < 0.5:
        return [{"role": "user", "content": texts.plain(random, random.choice((1, 8, 40)))}]
    if kind < 0.9:
        return [_anthropic_message(random) for _ in range(random.choice((1, 1, 2, 3, 8)))]
    if kind < 0.94:
        return [{"role": random.choice(("user", "assistant")), "content": "a"}] * random.choice((100, 4_096, 4_097))
    return random.choice(([], [[]], [None], ["hello"], [{}], [{"role": "user"}], [{"role": "user", "content": []}]))


def _anthropic_message(random: Random) -> Said:
    kind = random.random()
    if kind < 0.3:
        return {"role": random.choice(("user", "assistant", "system", "tool")), "content": texts.odd(random)}
    if kind < 0.6:
        part = {"type": "text", "text": random.choice(("", "a", texts.odd(random)))}
        return {"role": "user", "content": [part] * random.choice((1, 3, 4_096, 4_097))}
    if kind < 0.75:
        used = {
            "type": "tool_use",
            "id": texts.odd(random),
            "name": texts.odd(random),
            "input": {"a": texts.odd(random)},
        }
        return {"role": random.choice(("assistant", "assistant", "user")), "content": [used] * random.choice((1, 128))}
    if kind < 0.95:
        result = {"type": "tool_result", "tool_use_id": texts.odd(random), "content": texts.odd(random)}
        return {"role": random.choice(("user", "user", "assistant")), "content": [result] * random.choice((1, 3))}
    source = {"type": "url", "url": "http://127.0.0.1:1/x.png"}
    return {"role": "user", "content": [{"type": "image", "source": source}]}


def response_input(random: Random) -> object:
    kind = random.random()
    if kind < 0.4:
        return texts.plain(random, random.choice((1, 8, 40)))
    if kind < 0.5:
        return texts.odd(random)
    if kind < 0.9:
        return [_item(random) for _ in range(random.choice((1, 1, 2, 3, 8)))]
    if kind < 0.94:
        return [{"role": random.choice(("user", "assistant")), "content": "a"}] * random.choice((100, 4_096, 4_097))
    return random.choice(([], [[]], [None], ["hello"], [{}], [{"role": "user"}], {}, 5, [{"type": "file_search_call"}]))


def _item(random: Random) -> Said:
    kind = random.random()
    if kind < 0.4:
        return {"role": random.choice(_KNOWN_ROLES), "content": texts.odd(random)}
    if kind < 0.6:
        part = {"type": random.choice(("input_text", "output_text", "input_image")), "text": texts.odd(random)}
        return {"type": "message", "role": "user", "content": [part] * random.choice((0, 1, 3, 4_096))}
    if kind < 0.75:
        called = {"call_id": texts.odd(random)[:64], "name": texts.odd(random), "arguments": texts.odd(random)}
        return {"type": "function_call", **called}
    if kind < 0.9:
        return {"type": "function_call_output", "call_id": texts.odd(random)[:64], "output": texts.odd(random)}
    if kind < 0.95:
        return {"type": "reasoning", "summary": [], "encrypted_content": texts.odd(random)}
    return {"type": "item_reference", "id": random.choice((f"msg_{'0' * 32}o0", texts.odd(random)[:64]))}
