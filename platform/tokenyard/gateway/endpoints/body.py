"""What the request path asks of the body of a paid request, and the fields that both ways of generating text share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import msgspec
from msgspec import Meta

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import RequestId
from tokenyard.core.models import BaseModel, ModelTask
from tokenyard.core.usage import DEFAULT_TIER, MAX_END_USER_CHARS
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.invalid_body import Json, invalid, unsupported

MAX_CHOICES = 128
MAX_BIASES = 1024
"""More than these end the worker of vLLM's GPU engine, and with it the replica."""
MAX_STOP_CHARS = 1024
MAX_LOGPROBS = 500_000
"""So many are held at once, in the replica about 1 KB each; a stream holds only those of an echoed prompt."""
MAX_TOKENS = 10_000_000
ALWAYS_ASKED = {"include_usage": True, "continuous_usage_stats": True}
"""Of every stream, so that what passed is known exactly at any moment."""
_INT64 = 2**63
_LEAST_TOP_P = 1e-6  # so near to 0 that the likeliest token is left alone: the engine does not take OpenAI's 0
MODELS_OWN = "Default: the model's own `sampling`, as `GET /v1/models/{model}` shows it."

MaxTokens = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
EndUser = Annotated[
    str,
    Meta(
        max_length=MAX_END_USER_CHARS,
        pattern="^[^\\x00]*$",
        description="Which of your own users this is for: usage and costs can be grouped by it.",
    ),
]
ServiceTier = Annotated[
    Literal["auto", "default", "flex", "priority", "fast"],
    Meta(description="`auto` is `default`, `fast` is `priority`. Others than `default` are for plans that have them."),
]
ServedTier = Literal["default", "flex", "priority"]
Ignored = Annotated[Any, Meta(description="Accepted for compatibility; it changes nothing.")]
NO_NUL = r"^[^\x00]*$"  # PostgreSQL cannot even be asked for a text with a NUL
_MetadataKey = Annotated[str, Meta(min_length=1, max_length=64, pattern=NO_NUL)]
Metadata = Annotated[
    dict[_MetadataKey, Annotated[str, Meta(max_length=512, pattern=NO_NUL)]],
    Meta(max_length=16, description="Up to 16 pairs of texts to find a stored answer by."),
]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1, description=MODELS_OWN)]
Temperature = Annotated[float, Meta(ge=0, le=2, description=MODELS_OWN)]
RepetitionPenalty = Annotated[float, Meta(ge=0.01, le=10, description=MODELS_OWN)]
TopK = Annotated[int, Meta(ge=-1, le=1_000_000, description=MODELS_OWN)]
_Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]
_TokenId = Annotated[str, Meta(pattern="^[0-9]{1,10}$")]
_Bias = Annotated[float, Meta(ge=-100, le=100)]


class Prompt(msgspec.Struct, frozen=True):
    """One prompt as it is counted: texts, and the tokens that come on top of theirs."""

    texts: list[str]
    tokens: int

    @property
    def bound(self) -> int:
        """The number of tokens that the prompt cannot exceed: a token is at least one byte of text."""
        return sum(len(text.encode()) for text in self.texts) + self.tokens


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`include_usage` adds a last event with the usage of the whole request. Events are never padded, for which
    `include_obfuscation` would ask.
    """

    include_usage: bool | None = None
    include_obfuscation: Annotated[bool, Meta(extra_json_schema={"enum": [False]})] | None = None


class AnswerHead(NamedTuple):
    """What stands over an answer: the request's id, the model that the replica is asked for, and unix seconds."""

    id: RequestId
    model: str
    created_at: int = 0


class PaidBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the request path asks of a body. As with OpenAI, null is the same as leaving a field out, and fields that
    are not there are refused by name.
    """

    # These types are the check and the description. One of None is of a field that OpenAI knows and this platform does
    # not offer: `refused` says why.
    refused: ClassVar[Mapping[str, str]] = {}
    task: ClassVar[ModelTask] = ModelTask.CHAT
    max_prompt_tokens: ClassVar[int | None] = None

    model: Annotated[str, Meta(min_length=1, description="A base model, a fine-tuned model, or an alias of your own.")]
    stream: bool | None = None

    @property
    def end_user(self) -> str:
        """Which of its own users the client names, if any."""
        return ""

    @property
    def cache_key(self) -> str:
        """What the client says of requests whose prompts begin alike, if anything."""
        return ""

    @property
    def tier(self) -> str:
        """The service tier that is asked for."""
        return DEFAULT_TIER

    @property
    def choices(self) -> int:
        """How many completions each prompt may cost; 0 where nothing is generated."""
        return 1

    @property
    def wanted_tokens(self) -> int | None:
        """The bound on each completion, or None where the model's own default is to be taken."""
        raise NotImplementedError

    @property
    def stores(self) -> bool:
        """Whether the answer is to be kept."""
        return False

    @property
    def in_background(self) -> bool:
        """Whether the client does not wait for the answer."""
        return False

    @property
    def continues(self) -> str | None:
        """The id of the response whose conversation goes on."""
        return None

    @property
    def referred_items(self) -> Mapping[str, str]:
        """The ids of items that stand for them, and of the stored responses that hold them."""
        return {}

    def recall(self, conversation: Sequence[Json], items: Mapping[str, Json]) -> None:
        """Take what `continues` and `referred_items` lead to, before anything else is asked of the body."""

    def check(self) -> None:
        """Refuse what no single field tells: fields that do not go together."""

    def check_model(self, model: BaseModel) -> None:
        """Refuse what `model` cannot do, in its own way or at all, before its engine would."""

    def prompts(self, model: BaseModel) -> list[Prompt]:
        """Return what the model is made to read."""
        raise NotImplementedError

    def parts(self, model: BaseModel) -> list[Prompt]:
        """Return the prompt in parts of which the first may be left out where it is too long; [] where none may."""
        return []

    def leave_out(self, number: int) -> None:
        """Leave out so many of the first parts."""

    def sent(self, model: BaseModel, max_tokens: int) -> Json:
        """Return what goes to the replica, but for its name of the model and what all requests carry."""
        raise NotImplementedError

    def answer(self, head: AnswerHead) -> Answer:
        """Return what reads the replica's answer and gives the client's."""
        raise NotImplementedError


class GenerationBody(PaidBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The fields of chat and completions."""

    # The gateway sets these itself, or they are for the gateway alone.
    not_sent: ClassVar[frozenset[str]] = frozenset(
        {"model", "stream", "stream_options", "max_tokens", "metadata", "store", "user"}
    )

    frequency_penalty: _Penalty | None = None
    logit_bias: Annotated[dict[_TokenId, _Bias], Meta(max_length=MAX_BIASES)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES, description="Choices for each prompt. Default: 1.")] | None = None
    presence_penalty: _Penalty | None = None
    seed: Annotated[int, Meta(ge=-_INT64, le=_INT64 - 1)] | None = None
    stop: _Stop | Annotated[list[_Stop], Meta(max_length=4)] | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    # Not OpenAI's, but what users of open models ask for; they cost nothing.
    min_p: Share | None = None
    repetition_penalty: RepetitionPenalty | None = None
    top_k: TopK | None = None
    # Bookkeeping of OpenAI's own platform.
    metadata: Ignored = None
    store: Ignored = None
    user: EndUser | None = None

    @property
    def end_user(self) -> str:
        return self.user or ""

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def sequences(self) -> int:
        """How many completions the whole request asks for."""
        return self.choices

    @property
    def logprobs_per_token(self) -> int:
        """How many log probabilities are told of each token."""
        return 0

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
            )
        if self.stream_options is not None and self.stream_options.include_obfuscation:
            raise unsupported("stream_options.include_obfuscation", "events are not padded here.")
        if self.seed is not None and not -_INT64 <= self.seed <= _INT64 - self.choices:
            raise invalid("seed", "each choice has a seed of its own, one above the other, within 64 bits.")

    def check_model(self, model: BaseModel) -> None:
        temperature = model.sampling.temperature if self.temperature is None else self.temperature
        if self.choices > 1 and temperature == 0:
            raise invalid("n", "at temperature 0 all choices would be alike; ask for one.")
        if self.logit_bias:
            check_tokens("logit_bias", map(int, self.logit_bias), model)
        if self.logprobs_per_token:
            self._check_logprobs(model)

    def _check_logprobs(self, model: BaseModel) -> None:
        wanted = model.default_max_tokens if self.wanted_tokens is None else self.wanted_tokens
        held = self.echoed_tokens(model) + (0 if self.stream else self.sequences * wanted)
        if held * self.logprobs_per_token > MAX_LOGPROBS:
            raise invalid("logprobs", f"over {MAX_LOGPROBS} of them at once; ask for fewer, or for a stream.")

    def echoed_tokens(self, model: BaseModel) -> int:
        """Return how many tokens of prompts the answer repeats at most, over all choices."""
        return 0

    def sent(self, model: BaseModel, max_tokens: int) -> Json:
        given: Json = msgspec.to_builtins(self)
        if self.top_p is not None:
            given["top_p"] = max(self.top_p, _LEAST_TOP_P)
        sent = {name: value for name, value in given.items() if name not in self.not_sent}
        # What the client says nothing of is sampled as the model's file says.
        sent = {**msgspec.to_builtins(model.sampling), **sent, "max_tokens": max_tokens}
        if self.stream:
            sent |= {"stream": True, "stream_options": ALWAYS_ASKED}
        return sent

    def answer(self, head: AnswerHead) -> Answer:
        return Answer(include_usage=self.include_usage, choices_per_prompt=self.choices)


def served_tier(asked: ServiceTier | None) -> ServedTier:
    """Return by which tier a request is served, unless its plan does not have that."""
    match asked:
        case "flex":
            return "flex"
        case "priority" | "fast":
            return "priority"
    return "default"


def check_tokens(name: str, tokens: Iterable[int], model: BaseModel) -> None:
    """Refuse token ids outside the vocabulary; where that is not known here, the engine does."""
    size = model.vocabulary_size
    if size is not None and (highest := max(tokens)) >= size:
        raise invalid(name, f"token {highest} is outside the model's vocabulary of {size}.")
