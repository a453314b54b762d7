"""How many tokens a prompt can be: a quick upper bound, and an exact count where the bound would refuse."""

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer

from tokenyard.core.catalog import BaseModel
from tokenyard.core.errors import Unavailable
from tokenyard.gateway.endpoints.call import Call
from tokenyard.gateway.endpoints.table import CHAT

# A start token, and one more for tokenizers that put a space in front of the text.
COMPLETION_EXTRA_TOKENS = 2
MAX_TOKENIZERS = 16
MAX_COUNTING = 2
COUNT_WAIT_S = 5.0


def prompt_bounds(call: Call, model: BaseModel) -> list[int]:
    """Return a number of tokens that each prompt cannot exceed: a token is at least one byte of text."""
    if call.endpoint is not CHAT:
        return [_size(one) + COMPLETION_EXTRA_TOKENS for one in _completion_inputs(call.input)]
    text = sum(len(one.encode()) for one in _chat_texts(call))
    return [text + _template_tokens(call, model)]


def _size(prompt: str | list[int]) -> int:
    return len(prompt.encode()) if isinstance(prompt, str) else len(prompt)


def _template_tokens(call: Call, model: BaseModel) -> int:
    return model.template_tokens + model.template_tokens_per_message * len(call.input)


def _completion_inputs(prompt: Any) -> list[Any]:
    return prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]


def _chat_texts(call: Call) -> list[str]:
    texts = []
    for message in call.input:
        for field, value in message.items():
            if field == "role":  # one of a few words, part of what the template adds
                continue
            if isinstance(value, str):
                texts.append(value)
            elif field == "content" and value is not None:
                texts.extend(part["text"] for part in value)
            elif value is not None:
                texts.append(_as_in_a_template(value))
    if "tools" in call.body:
        texts.append(_as_in_a_template(call.body["tools"]))
    return texts


def _as_in_a_template(value: Any) -> str:
    # Templates may print JSON with an indent of four.
    printed = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return printed.replace("\n", "\n  ").replace("  ", "    ")


class TokenCounter:
    """Counts with the model's own tokenizer, in a thread, a few at a time."""

    def __init__(self) -> None:
        self._tokenizers: OrderedDict[str, Tokenizer] = OrderedDict()
        self._turns = asyncio.Semaphore(MAX_COUNTING)

    async def count(self, call: Call, model: BaseModel) -> list[int] | None:
        """Return the tokens of each prompt; for chat, what the template adds is its bound.

        None where the model's tokenizer is not on this machine: then the bound stands.

        Raises:
            Unavailable: too many long prompts wait to be counted.
        """
        try:
            async with asyncio.timeout(COUNT_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise Unavailable("Too many long prompts at the moment. Please try again.") from None
        try:
            return await asyncio.to_thread(self._count, call, model)
        finally:
            self._turns.release()

    def _count(self, call: Call, model: BaseModel) -> list[int] | None:
        tokenizer = self._tokenizer(model)
        if tokenizer is None:
            return None
        if call.endpoint is CHAT:
            tokens = sum(len(tokenizer.encode(one, add_special_tokens=False).ids) for one in _chat_texts(call))
            return [tokens + _template_tokens(call, model)]
        prompts = _completion_inputs(call.input)
        return [
            (len(tokenizer.encode(one).ids) if isinstance(one, str) else len(one)) + COMPLETION_EXTRA_TOKENS
            for one in prompts
        ]

    def _tokenizer(self, model: BaseModel) -> Tokenizer | None:
        known = self._tokenizers.get(model.id)
        file = Path(model.path) / "tokenizer.json"
        if known is None and file.is_file():
            known = Tokenizer.from_file(str(file))
            self._tokenizers[model.id] = known
            if len(self._tokenizers) > MAX_TOKENIZERS:
                self._tokenizers.popitem(last=False)
        return known
