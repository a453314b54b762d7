"""What an answer from elsewhere counts: as its server tells, where that can be; else by its text. Pure.

Nothing counts more than was held for it, and no text that passed counts nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.endpoints.invalid_body import Json

BYTES_A_TOKEN = 4
"""The usual rule of thumb, for a server that does not tell."""


class CountBounds(NamedTuple):
    """What was held: tokens of each prompt and of each of its choices; `guesses` are what the prompts may have."""

    prompts: Sequence[int]
    guesses: Sequence[int]
    choices: int
    max_tokens: int

    @property
    def answers(self) -> int:
        """How many choices the answer has over all of its prompts."""
        return len(self.prompts) * self.choices


class AnswerCount:
    """Counts one answer. `over` says that its server told more than was held."""

    def __init__(self, bounds: CountBounds) -> None:
        self._bounds = bounds
        self._prompts = [min(each) for each in zip(bounds.guesses, bounds.prompts, strict=True)]
        self._pieces: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self.over = False

    def passed(self, choice: int, text_bytes: int) -> None:
        """Count one piece of a choice's text: a token at least, if it is any."""
        if text_bytes:
            self._pieces[choice] = self._pieces.get(choice, 0) + 1
            self._bytes[choice] = self._bytes.get(choice, 0) + text_bytes

    def of_choice(self, choice: int, told: Json | None = None) -> TokenUsage:
        """Return the usage so far of one choice and its prompt, as `told` where it is right."""
        prompt = choice // self._bounds.choices
        own = TokenUsage(self._prompts[prompt], self._counted(choice))
        found = self._read(told, self._bounds.prompts[prompt], self._bounds.max_tokens, choice in self._bytes)
        return own if found is None else found

    def total(self, told: Json | None = None) -> TokenUsage:
        """Return the usage of the whole answer, as `told` where it is right."""
        bounds = self._bounds
        most = bounds.answers * bounds.max_tokens
        found = self._read(told, sum(bounds.prompts), most, bool(self._bytes))
        return TokenUsage(sum(self._prompts), sum(map(self._counted, self._bytes))) if found is None else found

    def _counted(self, choice: int) -> int:
        guess = -(-self._bytes.get(choice, 0) // BYTES_A_TOKEN)
        return min(max(self._pieces.get(choice, 0), guess), self._bounds.max_tokens)

    def _read(self, told: Json | None, most_prompt: int, most_completion: int, has_text: bool) -> TokenUsage | None:
        """Return what the server tells within what was held; None where that cannot be."""
        if not isinstance(told, dict):
            return None
        prompt, completion = whole_number(told.get("prompt_tokens")), whole_number(told.get("completion_tokens"))
        if not prompt or completion is None or (has_text and not completion):
            return None
        self.over = self.over or prompt > most_prompt or completion > most_completion
        details = told.get("prompt_tokens_details")
        cached = whole_number(details.get("cached_tokens")) if isinstance(details, dict) else None
        prompt = min(prompt, most_prompt)
        return TokenUsage(prompt, min(completion, most_completion), min(cached or 0, prompt))


def usage_told(usage: TokenUsage, told: Json | None = None) -> Json:
    """Return `usage` as a replica tells it; of what the server `told` only the share of reasoning is taken over."""
    shown: Json = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens:
        shown["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    details = told.get("completion_tokens_details") if isinstance(told, dict) else None
    reasoning = whole_number(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    if reasoning:
        shown["completion_tokens_details"] = {"reasoning_tokens": min(reasoning, usage.completion_tokens)}
    return shown


def whole_number(value: object) -> int | None:
    """Return a number of 0 or more, and None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
