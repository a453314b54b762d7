"""`POST /v1/completions`."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenyard.core.models import BaseModel
from tokenyard.core.replica import MAX_SEQUENCES
from tokenyard.gateway.endpoints.body import MAX_TOKENS, GenerationBody, Prompt, check_tokens
from tokenyard.gateway.endpoints.inputs import check_input, each_input, input_schema
from tokenyard.gateway.endpoints.invalid_body import invalid, unsupported
from tokenyard.gateway.endpoints.usage import CompletionUsage

MAX_PROMPTS = 128
DEFAULT_MAX_TOKENS = 16
# A start token, and one more for tokenizers that put a space in front of the text.
EXTRA_TOKENS = 2

_DEFAULT = f"Default: {DEFAULT_MAX_TOKENS}. 0 only with `echo`."


class CompletionBody(GenerationBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One prompt or several to continue, as text or as token ids."""

    not_sent: ClassVar[frozenset[str]] = GenerationBody.not_sent | {"best_of", "suffix"}

    prompt: Annotated[Any, Meta(extra_json_schema=input_schema(MAX_PROMPTS))]
    best_of: Annotated[int, Meta(ge=1, le=20, description="Only at the value of `n`.")] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS, description=_DEFAULT)] | None = None
    suffix: Literal[""] | None = None

    @property
    def wanted_tokens(self) -> int | None:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def sequences(self) -> int:
        return len(self._prompts) * self.choices

    @property
    def logprobs_per_token(self) -> int:
        return 0 if self.logprobs is None else 1 + self.logprobs

    @property
    def _prompts(self) -> list[str] | list[list[int]]:
        return each_input(self.prompt)

    def check(self) -> None:
        super().check()
        check_input("prompt", self.prompt, MAX_PROMPTS)
        if self.sequences > MAX_SEQUENCES:
            raise invalid("n", f"prompts times choices must be at most {MAX_SEQUENCES} in one request.")
        if self.best_of is not None and self.best_of < self.choices:
            raise invalid("best_of", f"it must be at least 'n', which is {self.choices}.")
        if self.best_of is not None and self.best_of > self.choices:
            raise unsupported("best_of", "it is supported only at the value of 'n'.")
        if self.max_tokens == 0 and not self.echo:
            raise invalid("max_tokens", "0 is supported only with 'echo'.")

    def prompts(self, model: BaseModel) -> list[Prompt]:
        return [
            Prompt([one], EXTRA_TOKENS) if isinstance(one, str) else Prompt([], len(one) + EXTRA_TOKENS)
            for one in self._prompts
        ]

    def check_model(self, model: BaseModel) -> None:
        super().check_model(model)
        for prompt in self._prompts:
            if not isinstance(prompt, str):
                check_tokens("prompt", prompt, model)

    def echoed_tokens(self, model: BaseModel) -> int:
        bounds = (min(prompt.bound, model.context_length) for prompt in self.prompts(model))
        return self.choices * sum(bounds) if self.echo else 0


class CompletionLogprobs(msgspec.Struct):
    """Log probabilities of a text's tokens, one of each list a token; a first token that was given has none."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(msgspec.Struct):
    """One text, or in a stream more of it: there `finish_reason` is null before its end."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class Completion(msgspec.Struct):
    """A whole answer, or one event of a stream, of which only the last one before `[DONE]` may tell the usage."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    system_fingerprint: str | UnsetType = UNSET
