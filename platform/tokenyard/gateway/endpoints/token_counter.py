"""How many tokens prompts have exactly, where their quick bound would be refused."""

import asyncio
from collections import OrderedDict
from pathlib import Path

from tokenizers import Tokenizer

from tokenyard.core.errors import Unavailable
from tokenyard.core.models import BaseModel
from tokenyard.gateway.endpoints.body import Prompt

MAX_TOKENIZERS = 16
MAX_COUNTING = 2
COUNT_WAIT_S = 5.0


class TokenCounter:
    """Counts with the model's own tokenizer, in a thread, a few at a time."""

    def __init__(self) -> None:
        self._tokenizers: OrderedDict[str, Tokenizer] = OrderedDict()
        self._slots = asyncio.Semaphore(MAX_COUNTING)

    async def count(self, prompts: list[Prompt], model: BaseModel) -> list[int] | None:
        """Return the tokens of each prompt, or None where the model's tokenizer is not on this machine.

        Raises:
            Unavailable: too many long prompts wait to be counted.
        """
        try:
            async with asyncio.timeout(COUNT_WAIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable("Too many long prompts at the moment. Please try again.") from None
        try:
            return await asyncio.to_thread(self._count, prompts, model)
        finally:
            self._slots.release()

    def _count(self, prompts: list[Prompt], model: BaseModel) -> list[int] | None:
        tokenizer = self._tokenizer(model)
        if tokenizer is None:
            return None
        return [
            sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in prompt.texts) + prompt.tokens
            for prompt in prompts
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
