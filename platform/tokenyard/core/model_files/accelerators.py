"""How a model's replicas run: on each kind of machine, and how many of them there are."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

KINDS = ("cpu", "cuda")
_STATED_ELSEWHERE = {
    **dict.fromkeys(("tensor_parallel_size", "pipeline_parallel_size", "quantization"), "{kind}.{name}"),
    **dict.fromkeys(("max_loras", "max_cpu_loras"), "{kind}.lora.{name}"),
    **dict.fromkeys(("enable_lora", "max_lora_rank"), "`lora` of the model"),
    **dict.fromkeys(("enable_auto_tool_choice", "tool_call_parser"), "`tools` of the model"),
    **dict.fromkeys(("runner", "convert"), "`task` of the model"),
    **dict.fromkeys(("model", "tokenizer", "revision"), "`source` of the model"),
    "served_model_name": "`id` of the model",
    "max_model_len": "`context_length` of the model",
    "reasoning_parser": "`reasoning` of the model",
    "limit_mm_per_prompt": "`images` of the model",
    "generation_config": "`sampling` of the model",
    "chat_template": "`chat_template` of the model",
    "scheduler_cls": "{kind}.fairness",
    "additional_config": "{kind}.fairness",
}
"""Arguments of vLLM that follow from another part of the file, and which."""
_NEVER = {
    "trust_remote_code": "no foreign code is run",
    "distributed_executor_backend": "Ray starts the workers of a GPU, the replica those of a CPU",
}


class LoraRoomSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many adapters one replica runs in one batch (`max_loras`), and how many it keeps in memory."""

    max_loras: int = 4
    max_cpu_loras: int = 32


class FairnessSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a replica shares its engine among organizations.

    `quantum` is how far, in tokens of service, one whose prompt is computed already may go before one served less.
    `reserved_slots` stay free for organizations that have nothing running. Without any, or where they are taken, a
    newcomer stops a sequence of the most served; reserving saves that, and costs its part of the throughput.
    """

    quantum: Annotated[int, Meta(ge=0)] = 1024
    reserved_slots: Annotated[int, Meta(ge=0)] = 0


class AcceleratorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one replica runs on one kind of machine.

    Its engine has `tensor_parallel_size` x `pipeline_parallel_size` workers. Each asks Ray for a `bundle_per_worker`
    and has one GPU, or a part of one; `placement` is Ray's word for how the bundles lie on nodes. `quantization` names
    vLLM's method where the model's own config does not. Where the model takes adapters, `lora` is the room for them.
    `engine` goes to vLLM as it is.
    """

    bundle_per_worker: dict[str, float]
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    placement: Literal["PACK", "STRICT_PACK", "SPREAD", "STRICT_SPREAD"] | None = None
    quantization: str | None = None
    lora: LoraRoomSpec | None = None
    engine: dict[str, object] = {}
    env: dict[str, str] = {}
    fairness: FairnessSpec = FairnessSpec()

    @property
    def workers(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def lora_room(self) -> LoraRoomSpec:
        return self.lora or LoraRoomSpec()


class AutoscalingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Between which bounds, and by what, the number of replicas follows the load.

    `target_tokens` is what one replica should have inside, waiting and running: prompts and answers at their longest.
    With `min_replicas` 0 the model sleeps once nobody has asked for `to_zero_delay_s`; its next request wakes it. Until
    it is awake, `wake_queue` requests may wait at each gateway, each for `wake_wait_s` at most.
    """

    max_replicas: int
    target_tokens: int
    min_replicas: int = 1
    upscale_delay_s: float = 10.0
    downscale_delay_s: float = 300.0
    to_zero_delay_s: float = 900.0
    wake_queue: int = 128
    wake_wait_s: float = 300.0


def accelerator_faults(kind: str, stated: AcceleratorSpec, *, takes_adapters: bool) -> Iterator[str]:
    """Yield what is wrong with one of `accelerators`, each in words that name the field."""
    here = f"accelerators.{kind}"
    if kind not in KINDS:
        yield f"`{here}` is no kind of accelerator: {', '.join(KINDS)}"
        return
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        if getattr(stated, name) < 1:
            yield f"`{here}.{name}` must be at least 1"
    if stated.quantization == "":
        yield f"`{here}.quantization` must name a method of vLLM, or be left out"
    yield from _bundle_faults(f"{here}.bundle_per_worker", kind, stated.bundle_per_worker)
    yield from _engine_faults(here, stated.engine)
    yield from _room_faults(f"{here}.lora", stated, takes_adapters=takes_adapters)
    slots = stated.engine.get("max_num_seqs")
    if isinstance(slots, int) and slots <= stated.fairness.reserved_slots:
        yield f"`{here}.fairness.reserved_slots` must leave some of the {slots} of max_num_seqs"


def autoscaling_faults(replicas: int, stated: AutoscalingSpec | None, max_surge_percent: int) -> Iterator[str]:
    """Yield what is wrong with the number of replicas and how it changes."""
    if not 0 <= max_surge_percent <= 100:
        yield "`max_surge_percent` must be 0 to 100"
    if stated is None:
        if replicas < 1:
            yield (
                "`replicas` must be at least 1: to let the model sleep while nobody asks, state"
                " `autoscaling.min_replicas: 0`; to serve it no more, take it out of the served models"
            )
        return
    if stated.min_replicas < 0:
        yield "`autoscaling.min_replicas` must be at least 0"
    if stated.max_replicas < max(1, stated.min_replicas):
        yield "`autoscaling.max_replicas` must be at least 1 and at least `min_replicas`"
    if not stated.min_replicas <= replicas <= stated.max_replicas:
        yield "`replicas`, with which a model starts, must be within the bounds of `autoscaling`"
    yield from _scaling_number_faults(stated)


def _scaling_number_faults(stated: AutoscalingSpec) -> Iterator[str]:
    for name in ("target_tokens", "wake_queue", "wake_wait_s"):
        if not getattr(stated, name) > 0:
            yield f"`autoscaling.{name}` must be over 0"
    for name in ("upscale_delay_s", "downscale_delay_s", "to_zero_delay_s"):
        if getattr(stated, name) < 0:
            yield f"`autoscaling.{name}` must not be negative"


def _bundle_faults(here: str, kind: str, bundle: Mapping[str, float]) -> Iterator[str]:
    if not bundle:
        yield f"`{here}` must say what each worker asks Ray for"
    for name, amount in bundle.items():
        if not amount >= 0:
            yield f"`{here}.{name}` must not be negative"
    gpus = bundle.get("GPU", 0)
    if kind == "cuda" and not 0 < gpus <= 1:
        yield (
            f"`{here}.GPU` must be over 0 and at most 1, as each worker has one GPU or a part of it, not {gpus:g}: what"
            " makes a replica larger is `tensor_parallel_size` and `pipeline_parallel_size`"
        )
    if kind == "cpu" and gpus:
        yield f"`{here}.GPU` is for an accelerator with GPUs"


def _engine_faults(here: str, engine: Mapping[str, object]) -> Iterator[str]:
    for name in engine:
        if name in _STATED_ELSEWHERE:
            place = _STATED_ELSEWHERE[name].format(kind=here, name=name)
            yield f"`{here}.engine.{name}` must not be stated: it follows from {place}"
        elif name in _NEVER:
            yield f"`{here}.engine.{name}` must not be stated: {_NEVER[name]}"
    slots = engine.get("max_num_seqs")
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        yield f"`{here}.engine.max_num_seqs` must be a number over 0"


def _room_faults(here: str, stated: AcceleratorSpec, *, takes_adapters: bool) -> Iterator[str]:
    if stated.lora is not None and not takes_adapters:
        yield f"`{here}` is for a model that takes adapters: its own `lora` is null"
    room = stated.lora_room
    if not 1 <= room.max_loras <= room.max_cpu_loras:
        yield f"`{here}.max_loras` must be at least 1 and at most `max_cpu_loras`: memory holds what a batch runs"
