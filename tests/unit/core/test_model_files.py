"""Version 2 of a model's file: what each field may be, and what an older file is told."""

from pathlib import Path

import msgspec
import pytest
import yaml

from tokenyard.core.model_files.accelerators import AutoscalingSpec, LoraRoomSpec
from tokenyard.core.model_files.reading import read_model_spec, write_model_spec
from tokenyard.core.models import InvalidModelSpec, WakingBounds

FILE = """
version: 2
id: large
source: {kind: huggingface, repository: owner/large, revision: 0123456789abcdef0123456789abcdef01234567}
content_hash: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
context_length: 32768
default_max_tokens: 1024
template_tokens: 8
template_tokens_per_message: 4
created: 1
replicas: 2
autoscaling: {min_replicas: 1, max_replicas: 4, target_tokens: 100000}
max_surge_percent: 50
lora: {max_lora_rank: 64, target_modules: [q_proj, v_proj]}
accelerators:
  cpu:
    bundle_per_worker: {CPU: 4}
    engine: {max_num_seqs: 8}
  cuda:
    bundle_per_worker: {CPU: 1, GPU: 1}
    tensor_parallel_size: 4
    pipeline_parallel_size: 2
    placement: PACK
    quantization: fp8
    lora: {max_loras: 16, max_cpu_loras: 256}
    engine: {max_num_seqs: 256}
"""

OLD = """
id: old
source: {kind: folder, path: /models/old}
context_length: 1024
default_max_tokens: 128
template_tokens: 8
template_tokens_per_message: 4
created: 1
lora: {max_loras: 4, max_cpu_loras: 32, max_lora_rank: 16}
accelerators:
  cuda: {bundle: {CPU: 1, GPU: 1}, engine: {max_num_seqs: 4, tensor_parallel_size: 2}}
"""


def test_each_accelerator_has_its_own_workers_room_and_settings() -> None:
    spec = read_model_spec(FILE.encode())
    cpu, cuda = spec.accelerator("cpu"), spec.accelerator("cuda")
    assert (cpu.workers, cpu.quantization, cpu.lora_room) == (1, None, LoraRoomSpec())
    assert (cuda.workers, cuda.quantization, cuda.lora_room) == (8, "fp8", LoraRoomSpec(16, 256))
    assert spec.autoscaling == AutoscalingSpec(min_replicas=1, max_replicas=4, target_tokens=100_000)
    assert (spec.lora is not None and spec.lora.rules.max_rank, spec.max_surge_percent) == (64, 50)
    assert read_model_spec(write_model_spec(spec)) == spec


def test_an_older_file_is_told_what_to_change() -> None:
    with pytest.raises(InvalidModelSpec, match="is of version 1, and 2 is read") as refused:
        read_model_spec(OLD.encode())
    for step in (
        "state `version: 2`",
        "call `accelerators.cuda.bundle` `bundle_per_worker`",
        "move `accelerators.cuda.engine.tensor_parallel_size` to `accelerators.cuda.tensor_parallel_size`",
        "move `lora.max_loras` to `accelerators.<kind>.lora.max_loras`",
        "move `lora.max_cpu_loras` to `accelerators.<kind>.lora.max_cpu_loras`",
    ):
        assert step in str(refused.value)
    with pytest.raises(InvalidModelSpec, match="is of version 3, and 2 is read"):
        read_model_spec(b"version: 3")


def test_an_older_file_that_is_changed_as_it_was_told_is_read() -> None:
    stated = yaml.safe_load(OLD)
    (kind, accelerator), lora = next(iter(stated["accelerators"].items())), stated["lora"]
    accelerator["bundle_per_worker"] = accelerator.pop("bundle")
    accelerator["tensor_parallel_size"] = accelerator["engine"].pop("tensor_parallel_size")
    accelerator["lora"] = {name: lora.pop(name) for name in ("max_loras", "max_cpu_loras")}
    spec = read_model_spec(yaml.safe_dump({"version": 2, **stated}).encode())
    assert spec.accelerator(kind).workers == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("revision: 0123456789abcdef0123456789abcdef01234567", "revision: main"),
            "`source.revision` must be a commit",
        ),
        (("content_hash: a", "content_hash: x"), "`content_hash` must be a SHA-256"),
        (("template_tokens: 8", "template_tokens: -8"), "`template_tokens`"),
        (("created: 1", "created: 1\nruns_on: tpu"), "runs_on"),
        (("target_modules: [q_proj, v_proj]", "target_modules: []"), "`lora.target_modules`"),
        # the number of replicas
        (("min_replicas: 1", "min_replicas: -1"), "`autoscaling.min_replicas`"),
        (("max_replicas: 4", "max_replicas: 0"), "`autoscaling.max_replicas`"),
        (("min_replicas: 1", "min_replicas: 5"), "`autoscaling.max_replicas`"),
        (("replicas: 2\n", "replicas: 5\n"), "`replicas`, with which a model starts"),
        (("target_tokens: 100000", "target_tokens: 0"), "`autoscaling.target_tokens`"),
        ((", target_tokens: 100000", ""), "target_tokens"),
        (("target_tokens: 100000", "target_tokens: 1, upscale_delay_s: -1"), "`autoscaling.upscale_delay_s`"),
        (("target_tokens: 100000", "target_tokens: 1, downscale_delay_s: -1"), "`autoscaling.downscale_delay_s`"),
        (("target_tokens: 100000", "target_tokens: 1, to_zero_delay_s: -1"), "`autoscaling.to_zero_delay_s`"),
        (("target_tokens: 100000", "target_tokens: 1, wake_queue: 0"), "`autoscaling.wake_queue`"),
        (("target_tokens: 100000", "target_tokens: 1, wake_wait_s: 0"), "`autoscaling.wake_wait_s`"),
        (("max_surge_percent: 50", "max_surge_percent: 101"), "`max_surge_percent`"),
        (("max_surge_percent: 50", "max_surge_percent: -1"), "`max_surge_percent`"),
        # one accelerator
        (("  cuda:", "  tpu:"), r"`accelerators\.tpu` is no kind of accelerator"),
        (("tensor_parallel_size: 4", "tensor_parallel_size: 0"), r"`accelerators\.cuda\.tensor_parallel_size`"),
        (("pipeline_parallel_size: 2", "pipeline_parallel_size: 0"), r"`accelerators\.cuda\.pipeline_parallel_size`"),
        (("placement: PACK", "placement: NEAR"), "NEAR"),
        (("quantization: fp8", "quantization: ''"), r"`accelerators\.cuda\.quantization`"),
        (("{CPU: 4}", "{}"), r"`accelerators\.cpu\.bundle_per_worker` must say"),
        (("{CPU: 4}", "{CPU: -4}"), r"`accelerators\.cpu\.bundle_per_worker\.CPU` must not be negative"),
        (("{CPU: 4}", "{CPU: .nan}"), r"`accelerators\.cpu\.bundle_per_worker\.CPU`"),
        (("{CPU: 4}", "{CPU: 4, GPU: 1}"), r"`accelerators\.cpu\.bundle_per_worker\.GPU` is for"),
        (("{CPU: 1, GPU: 1}", "{CPU: 1}"), r"`accelerators\.cuda\.bundle_per_worker\.GPU` must be over 0"),
        (("{CPU: 1, GPU: 1}", "{CPU: 1, GPU: 4}"), "what makes a replica larger is `tensor_parallel_size`"),
        (("max_loras: 16", "max_loras: 0"), r"`accelerators\.cuda\.lora\.max_loras`"),
        (("max_loras: 16", "max_loras: 257"), r"`accelerators\.cuda\.lora\.max_loras`"),
        (("lora: {max_lora_rank: 64, target_modules: [q_proj, v_proj]}", "lora: null"), "its own `lora` is null"),
        (("{max_num_seqs: 8}", "{}"), r"`accelerators\.cpu\.engine\.max_num_seqs`"),
        (("{max_num_seqs: 8}", "{max_num_seqs: true}"), r"`accelerators\.cpu\.engine\.max_num_seqs`"),
        (("{max_num_seqs: 8}", "{max_num_seqs: 8}\n    fairness: {reserved_slots: 8}"), "reserved_slots"),
        (("{max_num_seqs: 8}", "{max_num_seqs: 8}\n    env: {A: 1}"), "env"),
    ],
)
def test_what_is_wrong_is_said_by_its_field(change: tuple[str, str], message: str) -> None:
    assert change[0] in FILE
    with pytest.raises(InvalidModelSpec, match=message):
        read_model_spec(FILE.replace(*change).encode())


def test_a_model_runs_on_what_its_file_describes() -> None:
    assert read_model_spec(FILE.replace("created: 1", "created: 1\nruns_on: cpu").encode()).runs_on == "cpu"
    alone = FILE.replace("  cpu:\n    bundle_per_worker: {CPU: 4}\n    engine: {max_num_seqs: 8}\n", "runs_on: cpu\n")
    alone = alone.replace("accelerators:\nruns_on: cpu\n", "runs_on: cpu\naccelerators:\n")
    with pytest.raises(InvalidModelSpec, match="`runs_on` is 'cpu', of which `accelerators` says nothing"):
        read_model_spec(alone.encode())


@pytest.mark.parametrize(
    ("argument", "place"),
    [
        ("tensor_parallel_size: 2", "accelerators.cpu.tensor_parallel_size"),
        ("quantization: fp8", "accelerators.cpu.quantization"),
        ("max_loras: 2", "accelerators.cpu.lora.max_loras"),
        ("enable_lora: true", "`lora` of the model"),
        ("max_model_len: 5", "`context_length` of the model"),
        ("tool_call_parser: hermes", "`tools` of the model"),
        ("scheduler_cls: x", "accelerators.cpu.fairness"),
        ("model: x", "`source` of the model"),
        ("trust_remote_code: true", "no foreign code is run"),
        ("distributed_executor_backend: mp", "Ray starts the workers"),
    ],
)
def test_what_the_file_says_elsewhere_is_no_argument_of_the_engine(argument: str, place: str) -> None:
    with pytest.raises(InvalidModelSpec) as refused:
        read_model_spec(FILE.replace("{max_num_seqs: 8}", f"{{max_num_seqs: 8, {argument}}}").encode())
    assert f"`accelerators.cpu.engine.{argument.partition(':')[0]}` must not be stated" in str(refused.value)
    assert place in str(refused.value)


def test_a_model_that_always_has_a_replica_is_not_waited_for() -> None:
    assert read_model_spec(FILE.encode()).waking is None
    assert read_model_spec(FILE.replace("autoscaling: {", "# {").encode()).waking is None


def test_no_replica_at_all_needs_bounds_that_allow_it() -> None:
    asleep = FILE.replace("replicas: 2\n", "replicas: 0\n")
    with pytest.raises(InvalidModelSpec, match="`replicas`, with which a model starts"):
        read_model_spec(asleep.encode())
    sleeping = read_model_spec(asleep.replace("min_replicas: 1", "min_replicas: 0, wake_queue: 7").encode())
    assert (sleeping.replicas, sleeping.waking) == (0, WakingBounds(requests=7, wait_s=300))
    fixed = asleep.replace("autoscaling: {min_replicas: 1, max_replicas: 4, target_tokens: 100000}\n", "")
    with pytest.raises(InvalidModelSpec, match=r"`replicas` must be at least 1: .* `autoscaling\.min_replicas: 0`"):
        read_model_spec(fixed.encode())


def test_every_argument_of_the_engine_that_shipped_files_state_is_allowed() -> None:
    for path in (Path(__file__).parents[3] / "deployments" / "models").glob("*.yaml"):
        spec = read_model_spec(path.read_bytes())
        assert msgspec.convert(msgspec.to_builtins(spec), type(spec)) == spec
