"""`POST /v1/completions`."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import BaseModel
from tokenyard.core.replica import MAX_SEQUENCES
from tokenyard.gateway.endpoints.body import MAX_TOKENS, GenerationBody, Prompt, check_tokens
from tokenyard.gateway.endpoints.invalid_body import invalid, unsupported
from tokenyard.gateway.endpoints.usage import CompletionUsage

MAX_PROMPTS = 128
MAX_TOKEN_ID = 2**31 - 1
DEFAULT_MAX_TOKENS = 16
# A start token, and one more for tokenizers that put a space in front of the text.
EXTRA_TOKENS = 2

_TEXT = {"type": "string"}
_TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}, "minItems": 1}
_SEVERAL = [{"type": "array", "items": one, "minItems": 1, "maxItems": MAX_PROMPTS} for one in (_TEXT, _TOKENS)]
_PROMPT = {"anyOf": [_TEXT, _TOKENS, *_SEVERAL]}
_TokenIds = Annotated[list[Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)]], Meta(min_length=1)]
_DEFAULT = f"Default: {DEFAULT_MAX_TOKENS}. 0 only with `echo`."


class CompletionBody(GenerationBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One prompt or several to continue, as text or as token ids."""

    not_sent: ClassVar[frozenset[str]] = GenerationBody.not_sent | {"best_of", "suffix"}

    prompt: Annotated[Any, Meta(extra_json_schema=_PROMPT)]
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
        several = isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
        return self.prompt if several else [self.prompt]

    def check(self) -> None:
        super().check()
        _check_prompt(self.prompt)
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


def _check_prompt(value: object) -> None:
    if (value and isinstance(value, str)) or _is_tokens(value):
        return
    if value == []:
        raise invalid("prompt", "empty array. Expected an array with minimum length 1.", "empty_array")
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if value == "" or (isinstance(value, list) and texts and "" in value):
        raise invalid("prompt", "an empty text cannot be continued.", "empty_string")
    if not (isinstance(value, list) and (texts or all(_is_tokens(one) for one in value))):
        message = "expected a string, an array of strings, an array of token ids, or an array of arrays of token ids."
        raise InvalidRequest(f"Invalid type for 'prompt': {message}", param="prompt", code="invalid_type")
    if len(value) > MAX_PROMPTS:
        raise invalid("prompt", f"at most {MAX_PROMPTS} prompts in one request.", "array_above_max_length")


def _is_tokens(value: object) -> bool:
    try:
        msgspec.convert(value, _TokenIds)  # there may be a million: no loop of our own
    except msgspec.ValidationError:
        return False
    return True


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
