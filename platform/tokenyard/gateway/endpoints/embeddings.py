"""`POST /v1/embeddings`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from tokenyard.core.errors import ContextLengthExceeded
from tokenyard.core.models import BaseModel, ModelTask
from tokenyard.gateway.endpoints.answer import Answer
from tokenyard.gateway.endpoints.body import AnswerHead, Ignored, PaidBody, Prompt, check_tokens
from tokenyard.gateway.endpoints.inputs import check_input, each_input, input_schema
from tokenyard.gateway.endpoints.invalid_body import Json, invalid, unsupported

MAX_INPUTS = 2048
MAX_INPUT_TOKENS = 300_000
MAX_DIMENSIONS = 65_536
_DIMENSIONS = "A length that the model was trained for, as `GET /v1/models/{model}` shows it. Default: its own."


class PooledBody(PaidBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What goes to an embedding model: texts of which nothing is generated."""

    task: ClassVar[ModelTask] = ModelTask.EMBEDDING
    max_prompt_tokens: ClassVar[int | None] = MAX_INPUT_TOKENS
    refused: ClassVar[Mapping[str, str]] = {"stream": "it is answered at once."}

    stream: None = None
    user: Ignored = None

    @property
    def choices(self) -> int:
        return 0

    @property
    def wanted_tokens(self) -> int | None:
        return 0

    def answer(self, head: AnswerHead) -> Answer:
        return Answer(include_usage=False)


class EmbeddingBody(PooledBody, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Texts, or their token ids, to embed: none over the model's context, and at most 300,000 tokens in all."""

    input: Annotated[Any, Meta(extra_json_schema=input_schema(MAX_INPUTS))]
    dimensions: Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS, description=_DIMENSIONS)] | None = None
    encoding_format: Literal["float", "base64"] | None = None

    def check(self) -> None:
        check_input("input", self.input, MAX_INPUTS)

    def check_model(self, model: BaseModel) -> None:
        for one in each_input(self.input):
            if not isinstance(one, str):
                check_tokens("input", one, model)
                _check_length(one, model)
        if self.dimensions is None or self.dimensions in model.dimensions[:1]:
            return
        if len(model.dimensions) == 1:
            raise unsupported("dimensions", f"this model's vectors have {model.dimensions[0]} dimensions.")
        if self.dimensions not in model.dimensions:
            raise invalid("dimensions", f"this model's vectors may have {', '.join(map(str, model.dimensions))}.")

    def prompts(self, model: BaseModel) -> list[Prompt]:
        """Return a prompt for each; nothing is added to those that come as tokens."""
        return [
            Prompt([one], model.template_tokens) if isinstance(one, str) else Prompt([], len(one))
            for one in each_input(self.input)
        ]

    def sent(self, model: BaseModel, max_tokens: int) -> Json:
        sent: Json = {"input": self.input, "encoding_format": self.encoding_format or "float"}
        if self.dimensions is not None and self.dimensions not in model.dimensions[:1]:
            sent["dimensions"] = self.dimensions
        return sent


def _check_length(tokens: list[int], model: BaseModel) -> None:
    """Refuse tokens that are too many; of texts the engine does, which counts them."""
    if len(tokens) > model.context_length:
        message = (
            f"This model's maximum context length is {model.context_length} tokens. However, your input holds "
            f"{len(tokens)} tokens. Please reduce its length."
        )
        raise ContextLengthExceeded(message, param="input")


class PromptUsage(msgspec.Struct):
    """What the request used: tokens of its texts, and no others."""

    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct):
    """The vector of one input: numbers, or with `encoding_format` base64 those as 32-bit floats, little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(msgspec.Struct):
    """The vectors of all inputs, in their order."""

    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: PromptUsage
