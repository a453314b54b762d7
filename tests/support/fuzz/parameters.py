"""Every documented parameter of each endpoint, at and beyond its edges."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from support.fuzz import texts
from support.fuzz.schemas import schema

Value = Callable[[Random], Any]
VOCABULARY = 49_152
CONTEXT = 8_192
BEYOND = 0.08
"""How often a value is taken from beyond its edges: more, and few bodies would get as far as the engine."""
_INT64 = 2**63
_WRONG: tuple[object, ...] = (None, True, "", "1", [], {}, [None], -1, 0, 1.5, 10**400, "\ud800")


def edges(*within: object, beyond: Sequence[object] = ()) -> Value:
    """Return values at the edges of what is allowed, and seldom one beyond."""
    return lambda random: random.choice(beyond if beyond and random.random() < BEYOND else within)


def _logit_bias(random: Random) -> dict[str, float]:
    kind = random.random()
    if kind < 0.4:
        return {str(random.choice((0, 1, 2, VOCABULARY - 1))): random.choice((-100, 100, 0, 1e-9))}
    if kind < 0.55:
        return {str(random.choice((VOCABULARY, 999_999_999, 2**31, 2**63, 10**30))): random.choice((-100, 100, 0))}
    if kind < 0.85:
        return {str(random.randrange(VOCABULARY)): random.choice((-100, 100)) for _ in range(300)}
    if kind < 0.92:
        return {random.choice(("-1", "1.5", "", "x", "007", "\u0661", "1")): random.choice((1, 101))}
    return {str(token): -100 for token in range(random.choice((1_000, VOCABULARY)))}


def _stop(random: Random) -> object:
    if random.random() < BEYOND:
        return random.choice((["a"] * 5, [""], "", [None]))
    odd = texts.odd(random) or "e"
    return random.choice((odd, [], [odd], ["a", "b", "c", "d"], "e", ["e" * 9_000], [" "], ["\n", "<|im_end|>"]))


def response_format(random: Random) -> object:
    kind = random.random()
    if kind < 0.15:
        return random.choice(
            ({"type": "text"}, {"type": "json_object"}, {"type": "xml"}, {"type": "json_schema"}, "json", {})
        )
    return {"type": "json_schema", "json_schema": _named_schema(random)}


def text_format(random: Random) -> object:
    """As a response is asked for it."""
    kind = random.random()
    if kind < 0.3:
        return random.choice(({}, {"format": {"type": "text"}}, {"format": {"type": "json_object"}}))
    if kind < 0.4:
        return random.choice(({"format": {"type": "json_schema"}}, {"verbosity": "low"}, {"format": "json"}, "json"))
    return {"format": {"type": "json_schema", **_named_schema(random)}}


def _named_schema(random: Random) -> dict[str, Any]:
    named: dict[str, Any] = {"name": random.choice(("x", texts.odd(random))), "schema": schema(random)}
    if random.random() < 0.4:
        named["strict"] = random.choice((True, False))
    return named


def function(random: Random) -> dict[str, Any]:
    return {"name": random.choice(("f", "f", "", "a b", texts.odd(random))), "parameters": schema(random)}


SAMPLING: dict[str, Value] = {
    "temperature": edges(0, -0.0, 5e-324, 1e-9, 0.01, 1, 1.999999, 2, beyond=(2.000001, -1e-9, 1e308)),
    "top_p": edges(0, 5e-324, 1e-9, 0.5, 0.999999, 1, beyond=(1.000001, -0.1)),
    "min_p": edges(0, 5e-324, 0.5, 1, beyond=(1.000001, -0.1)),
    "top_k": edges(-1, 0, 1, 2, VOCABULARY, VOCABULARY + 1, 1_000_000, beyond=(-2, 1_000_001, 2**64)),
    "repetition_penalty": edges(0.01, 1, 10, beyond=(0, 0.009, 10.1)),
}
_END_USER = edges("ann", "é" * 128, "", "😀", beyond=("x" * 129, "a\x00"))
_METADATA = edges({}, {"a": "b"}, {"x" * 64: "y" * 512}, beyond=({"x" * 65: "y"}, {"a": "\x00"}, {"a": 1}, []))
_TOOL_CHOICE = edges("none", beyond=("auto", "required", "x", {"type": "function", "function": {"name": "f"}}))
SHARED: dict[str, Value] = {
    **SAMPLING,
    "frequency_penalty": edges(-2, -0.0, 5e-324, 2, beyond=(-2.000001, 2.000001, 1e308)),
    "presence_penalty": edges(-2, -0.0, 5e-324, 2, beyond=(-2.000001, 2.000001, 10**30)),
    "seed": edges(0, -1, _INT64 - 1, -_INT64, 2**32, beyond=(_INT64, -_INT64 - 1)),
    "n": edges(1, 2, 5, 33, 128, beyond=(0, 129, -1)),
    "stop": _stop,
    "logit_bias": _logit_bias,
    "stream": edges(True, True, True, False),
    "max_tokens": edges(1, 2, 64, CONTEXT - 1, CONTEXT, CONTEXT + 1, 10_000_000, beyond=(0, 10_000_001, 2**64)),
    "user": _END_USER,
    "metadata": edges({}, {"a": "b"}, {"x" * 1000: None}, []),
    "store": edges(True, "x"),
}
CHAT: dict[str, Value] = {
    **SHARED,
    "metadata": _METADATA,
    "store": edges(True, False, beyond=("x",)),
    "logprobs": edges(True, True, False),
    "top_logprobs": edges(0, 1, 20, beyond=(-1, 21)),
    "max_completion_tokens": edges(1, 40, CONTEXT, CONTEXT * 10, beyond=(0,)),
    "parallel_tool_calls": edges(True, False),
    "safety_identifier": _END_USER,
    "service_tier": edges("auto", "default", beyond=("flex", "priority", 5)),
    "prompt_cache_key": edges("x", "", beyond=("x" * 129,)),
    "prompt_cache_retention": edges("in_memory", beyond=("24h",)),
    "prediction": edges(None, beyond=({"type": "content", "content": "x"},)),
    "reasoning_effort": edges("none", beyond=("high", "minimal")),
    "verbosity": edges("medium", beyond=("low",)),
    "modalities": edges(["text"], beyond=(["audio"], [], ["text", "audio"])),
    "tool_choice": _TOOL_CHOICE,
    "audio": edges(None, beyond=({"voice": "alloy", "format": "wav"},)),
    "functions": edges(None, beyond=([{"name": "f"}],)),
    "function_call": edges(None, beyond=("auto",)),
    "web_search_options": edges(None, beyond=({},)),
}
COMPLETIONS: dict[str, Value] = {
    **SHARED,
    "logprobs": edges(0, 1, 5, beyond=(-1, 6)),
    "echo": edges(True, True, False),
    "best_of": edges(1, beyond=(0, 20, 21)),
    "suffix": edges("", beyond=(" end",)),
}
RESPONSES: dict[str, Value] = {
    **SAMPLING,
    "background": edges(False, False, False, True, beyond=("yes",)),
    "conversation": edges(None, beyond=("conv_1", {"id": "conv_1"})),
    "include": edges([], ["message.output_text.logprobs"], beyond=(["file_search_call.results"], "all")),
    "instructions": texts.odd,
    "max_output_tokens": edges(16, 17, 64, CONTEXT, CONTEXT + 1, 10_000_000, beyond=(15, 0, 10_000_001)),
    "max_tool_calls": edges(1, 128, beyond=(0, 129)),
    "metadata": _METADATA,
    "parallel_tool_calls": edges(True, False),
    "previous_response_id": edges(None, beyond=("resp_" + "0" * 32, "", "x" * 65, "a\x00")),
    "prompt": edges(None, beyond=({"id": "pmpt_1"},)),
    "prompt_cache_key": edges("x", "", beyond=("x" * 257,)),
    "prompt_cache_retention": edges("in_memory", beyond=("24h",)),
    "reasoning": edges({}, {"effort": "none"}, beyond=({"effort": "high"}, {"summary": "auto"}, "none")),
    "safety_identifier": _END_USER,
    "service_tier": edges("auto", "default", beyond=("flex", 5)),
    "store": edges(True, False, beyond=("x",)),
    "stream": edges(True, True, True, False),
    "text": text_format,
    "tool_choice": edges("none", "auto", beyond=("required", "x", {"type": "function", "name": "f"})),
    "tools": edges([], beyond=([{"type": "web_search"}], [{"type": "function", "name": "a b"}])),
    "top_logprobs": edges(0, beyond=(1, 20, 21)),
    "truncation": edges("disabled", "auto"),
    "user": _END_USER,
}
MESSAGES: dict[str, Value] = {
    "cache_control": edges({"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}, beyond=({"type": "x"}, {})),
    "max_tokens": edges(1, 2, 64, CONTEXT, CONTEXT + 1, 10_000_000, beyond=(0, 10_000_001)),
    "metadata": edges({}, {"user_id": "ann"}, {"user_id": "é" * 128}, beyond=({"user_id": "x" * 129}, {"a": "b"})),
    "output_config": edges({}, {"format": None}, beyond=({"effort": "high"}, {"format": {"type": "text"}})),
    "service_tier": edges("auto", "standard_only", beyond=("priority",)),
    "speed": edges("standard", beyond=("fast",)),
    "stop_sequences": edges([], ["e"], ["a", "b", "c", "d"], ["e" * 1_024], beyond=(["a"] * 5, [""], "e")),
    "stream": edges(True, True, True, False),
    "system": lambda random: random.choice((texts.odd(random), [{"type": "text", "text": texts.odd(random)}], [])),
    "temperature": edges(0, 5e-324, 0.5, 1, beyond=(1.000001, -0.1, 2)),
    "thinking": edges(
        {"type": "disabled"}, {"type": "adaptive"}, beyond=({"type": "enabled", "budget_tokens": 1_024},)
    ),
    "tool_choice": edges({"type": "none"}, beyond=({"type": "any"}, {"type": "tool", "name": "f"}, {"type": "x"})),
    "tools": edges([], beyond=([{"type": "web_search_20250305", "name": "web_search"}], [{}])),
    "top_k": edges(0, 1, VOCABULARY + 1, 1_000_000, beyond=(-1, 1_000_001)),
    "top_p": SAMPLING["top_p"],
}
EMBEDDINGS: dict[str, Value] = {
    "dimensions": edges(384, beyond=(0, 1, 383, 65_537)),
    "encoding_format": edges("float", "base64", beyond=("binary",)),
    "user": edges("ann", 5),
}
SCORE: dict[str, Value] = {"user": edges("ann", 5)}
RERANK: dict[str, Value] = {
    "return_documents": edges(True, False),
    "top_n": edges(1, 2, 2_048, beyond=(0, 2_049)),
    "user": edges("ann", 5),
}
STREAM_OPTIONS: Value = edges(
    *({"include_usage": True}, {"include_usage": None}, {}, {"include_obfuscation": False}),
    beyond=({"x": 1}, [], {"include_obfuscation": True}),
)
ENGINES_OWN: dict[str, Value] = {
    "cache_salt": edges("a", "/" * 200),
    "priority": edges(-(2**31), 0),
    "chat_template": edges("{% for x in range(10**9) %}{% endfor %}"),
    "structured_outputs": edges({"regex": "(" * 50_000 + ")" * 50_000}, {"grammar": "root ::= root"}),
    "guided_regex": edges("(a+)+b"),
    "prompt_logprobs": edges(20),
    "ignore_eos": edges(True),
    "min_tokens": edges(8_000),
    "stop_token_ids": edges([10**9]),
    "allowed_token_ids": edges([]),
    "bad_words": edges([""]),
    "use_beam_search": edges(True),
    "add_generation_prompt": edges(False),
    "continue_final_message": edges(True),
    "truncate_prompt_tokens": edges(-1, 2**40),
    "vllm_xargs": edges({"a": 1}),
    "kv_transfer_params": edges({"do_remote_prefill": True}),
    "request_id": edges("x"),
}
"""What the engine knows and this platform does not offer."""


def wrong(random: Random) -> object:
    """Return a value of no kind in particular."""
    return random.choice(_WRONG)
