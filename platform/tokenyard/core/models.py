"""Served models: what `deployments/models/<id>.yaml` says of one, and what the catalog tells the others of it."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tokenyard.core.adapters import LINEAR_LAYERS, AdapterRef, AdapterRules
from tokenyard.core.model_files.accelerators import AcceleratorSpec, AutoscalingSpec
from tokenyard.core.model_files.sources import ModelSource, ServerSource
from tokenyard.core.money import Price
from tokenyard.core.training import MAX_LEARNING_RATE_MULTIPLIER, TrainedMethod


class InvalidModelSpec(ValueError):
    """The file is not a model description; the message says which field."""


class ModelTask(StrEnum):
    """What a model is for: it answers in text, or gives vectors for texts."""

    CHAT = "chat"
    EMBEDDING = "embedding"


class LoraSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an adapter may look like, wherever it runs: it is trained once, for all kinds of machines."""

    max_lora_rank: int = 16
    target_modules: tuple[str, ...] = LINEAR_LAYERS

    @property
    def rules(self) -> AdapterRules:
        return AdapterRules(self.max_lora_rank, self.target_modules)


class SamplingDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a request is sampled with where its client says nothing, or null; None leaves it to the engine."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None


class TrainingDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a fine-tuning job is trained with where its client says "auto": as it was measured."""

    learning_rate_multiplier: dict[TrainedMethod, Annotated[float, Meta(gt=0, le=MAX_LEARNING_RATE_MULTIPLIER)]] = {}

    def multiplier(self, method: str) -> float:
        """Return the one of a method; 1 where none was measured."""
        return next((value for name, value in self.learning_rate_multiplier.items() if name == method), 1.0)


class ParserSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of vLLM's parsers reads this model's output."""

    parser: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class ImagesSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model takes images: so many of them in one request, of which each becomes `tokens` of the prompt at most."""

    tokens: Annotated[int, Meta(ge=1)]
    max_in_request: Annotated[int, Meta(ge=1, le=64)] = 4


class WakingBounds(msgspec.Struct, frozen=True):
    """While a model wakes up, so many requests may wait for it at each gateway, and each so long."""

    requests: int
    wait_s: float


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One served base model; of one with a `ServerSource`, what is said of replicas and adapters does not exist.

    `fallback` is the id of such a model, which answers in this one's place where no replica can. `template_tokens`
    bounds what the chat template adds once, also where it offers tools; `template_tokens_per_message` what it adds to
    each message. `chat_template` takes the place of the model's own. Without `tools` the model calls no tools; without
    `reasoning` all that it says is its answer; without `images` it takes text only.

    Of an embedding model `template_tokens` is what its tokenizer adds to each text, and `dimensions` are the lengths of
    vectors that it can give: its own, then the shorter ones that it was trained to be cut to. It generates nothing,
    so that `default_max_tokens` is 0, and takes no adapters.

    In one replica, `max_waiting` sequences may wait for a slot (the slots are `max_num_seqs`), and in all
    `max_waiting_tokens` of prompts and answers at their longest; one organization alone may have a third of either. A
    request that has no token after `max_wait_s` is given up. An engine that has work and says nothing for
    `max_silence_s` is asked for a token; if that takes as long again, it counts as hung. `max_request_s` bounds a
    request with all of its attempts, from when there is a replica.

    `content_hash` is of the weights, against which adapters are trained; where it is stated, others are refused.
    `replicas` are how many there are, or with `autoscaling` how many come first. After a change, `max_surge_percent` of
    them start anew beside the old ones, at least one; with 0 the old ones end first. `runs_on` is for an installation
    with nodes of more than one kind: the one of `accelerators` with which this model is served there.
    """

    id: str
    source: ModelSource
    context_length: int
    template_tokens: int
    template_tokens_per_message: int
    created: int
    accelerators: dict[str, AcceleratorSpec] = {}
    version: Literal[2] = 2
    content_hash: str | None = None
    runs_on: Literal["cpu", "cuda"] | None = None
    fallback: str | None = None
    task: ModelTask = ModelTask.CHAT
    dimensions: tuple[Annotated[int, Meta(ge=1)], ...] = ()
    default_max_tokens: int = 0
    description: str = ""
    license: str = ""
    lora: LoraSpec | None = LoraSpec()
    replicas: int = 1
    autoscaling: AutoscalingSpec | None = None
    max_surge_percent: int = 25
    max_waiting: int = 512
    max_waiting_tokens: int | None = None
    max_wait_s: float = 60.0
    max_silence_s: float = 30.0
    max_request_s: float = 900.0
    sampling: SamplingDefaults = SamplingDefaults()
    training: TrainingDefaults = TrainingDefaults()
    tools: ParserSpec | None = None
    reasoning: ParserSpec | None = None
    images: ImagesSpec | None = None
    chat_template: str | None = None

    @property
    def server(self) -> ServerSource | None:
        """The server elsewhere that answers for the model; None where our replicas do."""
        return self.source if isinstance(self.source, ServerSource) else None

    @property
    def calls_tools(self) -> bool:
        return self.tools is not None if self.server is None else "tools" not in self.server.refuses

    @property
    def tool_parser(self) -> str | None:
        return None if self.tools is None else self.tools.parser

    @property
    def reasoning_parser(self) -> str | None:
        return None if self.reasoning is None else self.reasoning.parser

    @property
    def waking(self) -> WakingBounds | None:
        """Within what to wait for the model when it sleeps; None where it never does."""
        scaling = self.autoscaling
        if scaling is None or scaling.min_replicas:
            return None
        return WakingBounds(scaling.wake_queue, scaling.wake_wait_s)

    @property
    def waiting_tokens(self) -> int:
        """`max_waiting_tokens`; by default room for `max_waiting` sequences of a quarter of the context each."""
        if self.max_waiting_tokens is not None:
            return self.max_waiting_tokens
        return self.max_waiting * self.context_length // 4

    def accelerator(self, kind: str) -> AcceleratorSpec:
        """Return how to run on `kind` (`cpu` or `cuda`); where the file does not say it raises `InvalidModelSpec`."""
        found = self.accelerators.get(kind)
        if found is None:
            raise InvalidModelSpec(f"model {self.id}: `accelerators` says nothing of {kind!r}")
        return found

    def slots(self, kind: str) -> int:
        """Return how many requests one replica runs at once."""
        slots = self.accelerator(kind).engine["max_num_seqs"]
        assert isinstance(slots, int)  # a file that says otherwise is not read
        return slots


class BaseModel(msgspec.Struct, frozen=True):
    """One served base model, from `deployments/models/<id>.yaml`.

    `path` is the local folder with config, weights and tokenizer. `template_tokens` bounds what the chat template
    adds to the text of the messages, for the first message and `template_tokens_per_message` for each one.
    `vocabulary_size` is None where that folder is not on this machine, `content_hash` where the file pins none. Where
    there is a `server`, it answers for the model; a `fallback` is a model with one, and answers where no replica can.
    `max_silence_s` is for streams, also before their first event; `max_request_s` for any request, with all of its
    attempts. A model that sleeps while nobody asks is waited for within `waking`.
    """

    id: str
    path: str
    context_length: int
    default_max_tokens: int
    template_tokens: int
    template_tokens_per_message: int
    max_lora_rank: int
    created: int
    task: ModelTask = ModelTask.CHAT
    dimensions: tuple[int, ...] = ()
    sampling: SamplingDefaults = SamplingDefaults()
    training: TrainingDefaults = TrainingDefaults()
    calls_tools: bool = False
    reasons: bool = False
    images: ImagesSpec | None = None
    vocabulary_size: int | None = None
    content_hash: str | None = None
    max_silence_s: float = 120.0
    max_request_s: float = 900.0
    server: ServerSource | None = None
    fallback: "BaseModel | None" = None
    waking: WakingBounds | None = None


class ResolvedModel(msgspec.Struct, frozen=True):
    """A public model name, resolved for one organization. `name` is what vLLM is asked for and what replies say."""

    name: str
    base: BaseModel
    price: Price
    adapter: AdapterRef | None = None
