"""How many tokens prompts have exactly, where their quick bound would be refused."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import BaseModel
from tokenyard.gateway.counting.counting_queue import CountingQueue
from tokenyard.gateway.counting.model_tokenizer import ModelTokenizer
from tokenyard.gateway.endpoints.body import Prompt

MAX_TOKENIZERS = 16

T = TypeVar("T")


class TokenCounter:
    """Counts with the model's own tokenizer, beside the event loop; None where it is not on this machine."""

    def __init__(self, models: Iterable[BaseModel] = ()) -> None:
        """Read the tokenizers of `models`, which would hold up the event loop later; others are read when wanted."""
        self._tokenizers: OrderedDict[str, ModelTokenizer] = OrderedDict()
        self._queue = CountingQueue()
        for model in models:
            self._tokenizer(model)

    @property
    def under_way(self) -> int:
        """How many counts wait or are being made."""
        return self._queue.under_way

    async def count(
        self, organization: OrganizationId, prompts: Sequence[Prompt], model: BaseModel
    ) -> list[int] | None:
        """Return the tokens of each prompt.

        Raises:
            RateLimited: too many long prompts of this organization wait to be counted.
            Unavailable: too many of all organizations do.
        """
        return await self._queue.run(organization, lambda: self._count(prompts, model))

    async def tokenize(
        self, organization: OrganizationId, model: BaseModel, work: Callable[[ModelTokenizer], T]
    ) -> T | None:
        """Return what `work` makes with the model's tokenizer. Raises as `count` does, and what `work` raises."""

        def done() -> T | None:
            tokenizer = self._tokenizer(model)
            return None if tokenizer is None else work(tokenizer)

        return await self._queue.run(organization, done)

    async def fewest(self, prompts: Sequence[Prompt], model: BaseModel) -> list[int] | None:
        """Return numbers of tokens that the prompts are never below, without counting."""
        tokenizer = self._tokenizers.get(model.path) or await asyncio.to_thread(self._tokenizer, model)
        return None if tokenizer is None else [tokenizer.fewest(prompt.texts) + prompt.tokens for prompt in prompts]

    def _count(self, prompts: Sequence[Prompt], model: BaseModel) -> list[int] | None:
        tokenizer = self._tokenizer(model)
        return None if tokenizer is None else [tokenizer.count(prompt.texts) + prompt.tokens for prompt in prompts]

    def _tokenizer(self, model: BaseModel) -> ModelTokenizer | None:
        known = self._tokenizers.get(model.path)
        file = Path(model.path) / "tokenizer.json"
        if known is None and file.is_file():
            known = self._tokenizers[model.path] = ModelTokenizer(file)
            if len(self._tokenizers) > MAX_TOKENIZERS:
                self._tokenizers.popitem(last=False)
        return known
