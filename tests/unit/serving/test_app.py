"""What Serve is asked to run: valid by Ray's own schema, and without a secret."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tokenyard.core.model_files.accelerators import AutoscalingSpec
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import ImagesSpec, ModelSpec, ParserSpec, SamplingDefaults, TrainingDefaults
from tokenyard_deployments.serving.app import (
    ServedModel,
    deployment_options,
    llm_config,
    serve_config,
    serve_environment,
)
from tokenyard_deployments.serving.autoscaling import replicas_wanted
from tokenyard_deployments.serving.replica_settings import ReplicaMisconfigured, ReplicaSettings

SPEC = Path(__file__).parents[3] / "deployments" / "models" / "smollm2-135m-instruct.yaml"
ENVIRONMENT = {
    "TOKENYARD_METER_SECRET": "ab" * 32,
    "TOKENYARD_REPLICA_BEARER": "cd" * 32,
    "TOKENYARD_REDIS_URL": "redis://:password@127.0.0.1/0",
    "TOKENYARD_BLOB_URL": "file:///blobs",
}


def applications(config: dict[str, object]) -> list[dict[str, Any]]:
    return msgspec.convert(config["applications"], list[dict[str, Any]])


@pytest.fixture
def spec() -> ModelSpec:
    return read_model_spec(SPEC.read_bytes())


def test_ray_takes_the_config(spec: ModelSpec) -> None:
    schema = pytest.importorskip("ray.serve.schema")
    config = serve_config([ServedModel(spec, "/models/x")], host="127.0.0.1", port=8001)
    read = schema.ServeDeploySchema(**json.loads(json.dumps(config)))
    (application,) = read.applications
    assert application.name == spec.id
    assert application.route_prefix == f"/{spec.id}"
    served = msgspec.convert(application.args["spec"], ModelSpec)
    assert (served.id, served.context_length, served.lora) == (spec.id, spec.context_length, spec.lora)
    (deployment,) = application.deployments
    assert deployment.name == deployment_options(spec, cpu_config(spec))["name"]


def cpu_config(spec: ModelSpec) -> dict[str, Any]:
    return llm_config(spec, path="/x", kind="cpu", overrides={})


def restarts(before: ModelSpec, after: ModelSpec) -> bool:
    """Tell whether Serve starts the replicas of a model anew for a change, by Serve's own rule."""
    utils, schema = pytest.importorskip("ray.serve._private.deploy_utils"), pytest.importorskip("ray.serve.schema")
    first, second = (
        schema.ServeDeploySchema(**serve_config([ServedModel(one, "/x")], host="127.0.0.1", port=1)).applications[0]
        for one in (before, after)
    )
    return bool(utils.get_app_code_version(first) != utils.get_app_code_version(second))


SCALING = AutoscalingSpec(min_replicas=0, max_replicas=3, target_tokens=1000)


def test_only_what_a_replica_knows_starts_it_anew(spec: ModelSpec) -> None:
    scaled = msgspec.structs.replace(spec, autoscaling=SCALING)
    for first, change in (
        (spec, {"replicas": 2}),
        (spec, {"max_surge_percent": 0}),
        (spec, {"sampling": SamplingDefaults(temperature=1)}),
        (spec, {"training": TrainingDefaults({"dpo": 2.0})}),
        (spec, {"description": "another"}),
        (spec, {"accelerators": {**spec.accelerators, "cuda": spec.accelerator("cpu")}}),
        (scaled, {"autoscaling": msgspec.structs.replace(SCALING, target_tokens=2000, max_replicas=9)}),
    ):
        assert not restarts(first, msgspec.structs.replace(first, **change)), change
    assert restarts(spec, msgspec.structs.replace(spec, context_length=4096))
    assert restarts(spec, msgspec.structs.replace(spec, accelerators={"cpu": spec.accelerator("cuda")}))


def test_a_replica_is_replaced_by_one_that_serves_already_and_has_time_for_what_is_inside(spec: ModelSpec) -> None:
    (application,) = applications(serve_config([ServedModel(spec, "/x")], host="127.0.0.1", port=1))
    (scale,) = application["deployments"]
    assert scale == {
        "name": "Replica:smollm2-135m-instruct",
        "num_replicas": 1,
        "max_surge_percent": 25,
        "graceful_shutdown_timeout_s": spec.max_request_s,
    }


def test_serve_takes_the_bounds_of_a_model_that_scales(spec: ModelSpec) -> None:
    config = pytest.importorskip("ray.serve.config")
    scaled = msgspec.structs.replace(spec, autoscaling=SCALING, replicas=0)
    (application,) = applications(serve_config([ServedModel(scaled, "/x")], host="127.0.0.1", port=1))
    (scale,) = application["deployments"]
    assert "num_replicas" not in scale
    read = config.AutoscalingConfig(**scale["autoscaling_config"])
    assert (read.min_replicas, read.initial_replicas, read.max_replicas) == (0, 0, 3)
    assert read.downscale_to_zero_delay_s == SCALING.to_zero_delay_s
    assert read.policy.get_policy().__qualname__ == replicas_wanted.__qualname__


def test_each_model_is_an_application_of_its_own(spec: ModelSpec) -> None:
    other = msgspec.structs.replace(spec, id="other")
    config = serve_config([ServedModel(spec, "/a"), ServedModel(other, "/b", "cuda")], host="0.0.0.0", port=1)
    assert [one["route_prefix"] for one in applications(config)] == [f"/{spec.id}", "/other"]


@pytest.mark.parametrize(("kind", "named"), [("cpu", "cpu"), ("cuda", "gpu")])
def test_the_engine_gets_what_the_description_says(spec: ModelSpec, kind: str, named: str) -> None:
    config = llm_config(spec, path="/models/x", kind=kind, overrides={"max_num_seqs": 3})
    engine = config["engine_kwargs"]
    assert config["accelerator_config"] == {"kind": named}
    assert engine["max_num_seqs"] == 3
    assert engine["max_model_len"] == spec.context_length
    assert engine["max_cpu_loras"] == spec.accelerator(kind).lora_room.max_cpu_loras


@pytest.mark.parametrize(("kind", "engine"), [("cpu", {"enforce_eager": True}), ("cpu", {}), ("cuda", {})])
def test_nothing_is_compiled_while_requests_wait_where_the_model_runs_eagerly(
    spec: ModelSpec, kind: str, engine: dict[str, Any]
) -> None:
    """vLLM runs a model with LoRA on a CPU eagerly in any case."""
    config = llm_config(spec, path="/x", kind=kind, overrides=engine)
    variables = config["runtime_env"]["env_vars"]
    assert variables.get("TORCH_COMPILE_DISABLE") == ("1" if kind == "cpu" else None)


def test_a_model_that_is_compiled_as_a_whole_may_compile_the_rest_too(spec: ModelSpec) -> None:
    config = llm_config(
        msgspec.structs.replace(spec, lora=None), path="/x", kind="cpu", overrides={"enforce_eager": False}
    )
    assert "TORCH_COMPILE_DISABLE" not in config["runtime_env"]["env_vars"]


def large(spec: ModelSpec, **stated: Any) -> ModelSpec:
    on_gpus = msgspec.structs.replace(
        spec.accelerator("cuda"), tensor_parallel_size=4, pipeline_parallel_size=2, **stated
    )
    return msgspec.structs.replace(spec, accelerators={"cuda": on_gpus})


def test_each_worker_of_the_engine_has_its_own_place(spec: ModelSpec) -> None:
    config = llm_config(large(spec), path="/x", kind="cuda", overrides={})
    options = deployment_options(spec, config)
    assert options["placement_group_bundles"] == [spec.accelerator("cuda").bundle_per_worker] * 8
    assert options["placement_group_strategy"] == "PACK"
    assert options["max_queued_requests"] == -1
    # They inherit their variables from the replica's actor.
    assert options["ray_actor_options"]["runtime_env"] == config["runtime_env"]


def test_the_workers_of_a_cpu_are_on_one_node(spec: ModelSpec) -> None:
    assert deployment_options(spec, cpu_config(spec))["placement_group_strategy"] == "STRICT_PACK"


def test_quantization_and_placement_are_as_the_file_says(spec: ModelSpec) -> None:
    config = llm_config(large(spec, quantization="fp8", placement="SPREAD"), path="/x", kind="cuda", overrides={})
    assert config["engine_kwargs"]["quantization"] == "fp8"
    assert config["placement_group_config"]["strategy"] == "SPREAD"
    assert "quantization" not in cpu_config(spec)["engine_kwargs"]


def test_the_application_is_built_without_loading_what_serves_it(spec: ModelSpec) -> None:
    """Serve builds it in a process that then ends: with vLLM it took 10 s of each start."""
    pytest.importorskip("ray.serve")
    config = serve_config([ServedModel(spec, "/models/x")], host="127.0.0.1", port=8001)
    script = (
        "import json, sys\n"
        "from tokenyard_deployments.serving.app import build\n"
        "application = build(json.loads(sys.argv[1]))\n"
        "import ray.cloudpickle\n"
        "ray.cloudpickle.dumps(application._bound_deployment.func_or_class)\n"
        "print([name for name in ('vllm', 'torch', 'transformers', 'ray.llm') if name in sys.modules])"
    )
    arguments = [sys.executable, "-c", script, json.dumps(applications(config)[0]["args"])]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_model_without_adapters_starts_without_lora(spec: ModelSpec) -> None:
    engine = llm_config(msgspec.structs.replace(spec, lora=None), path="/x", kind="cpu", overrides={})["engine_kwargs"]
    assert "enable_lora" not in engine


def test_an_embedding_model_is_served_by_the_pooling_runner() -> None:
    embedder = read_model_spec(SPEC.with_name("all-minilm-l6-v2.yaml").read_bytes())
    engine = llm_config(embedder, path="/x", kind="cpu", overrides={})["engine_kwargs"]
    assert (engine["runner"], engine["convert"], engine["enable_prefix_caching"]) == ("pooling", "embed", False)
    assert not {"enable_lora", "hf_overrides"} & set(engine)
    shorter = msgspec.structs.replace(embedder, dimensions=(384, 128))
    engine = llm_config(shorter, path="/x", kind="cpu", overrides={})["engine_kwargs"]
    assert engine["hf_overrides"] == {"matryoshka_dimensions": [384, 128]}


def test_the_parsers_go_to_the_engine(spec: ModelSpec) -> None:
    parsing = msgspec.structs.replace(spec, tools=ParserSpec("hermes"), reasoning=ParserSpec("qwen3"))
    engine = llm_config(parsing, path="/x", kind="cpu", overrides={})["engine_kwargs"]
    assert engine["enable_auto_tool_choice"] is True
    assert (engine["tool_call_parser"], engine["reasoning_parser"]) == ("hermes", "qwen3")
    silent = msgspec.structs.replace(spec, tools=None)
    plain = llm_config(silent, path="/x", kind="cpu", overrides={})["engine_kwargs"]
    assert not {"enable_auto_tool_choice", "tool_call_parser", "reasoning_parser"} & set(plain)


def test_a_model_that_takes_images_takes_so_many_in_a_request(spec: ModelSpec) -> None:
    seeing = msgspec.structs.replace(spec, images=ImagesSpec(tokens=500, max_in_request=3))
    engines = [llm_config(one, path="/x", kind="cpu", overrides={})["engine_kwargs"] for one in (seeing, spec)]
    assert [one.get("limit_mm_per_prompt") for one in engines] == [{"image": 3}, None]


def test_secrets_come_by_the_environment_and_are_not_shown(spec: ModelSpec) -> None:
    settings = ReplicaSettings.from_environment(ENVIRONMENT)
    assert settings.meter_secret == bytes.fromhex("ab" * 32)
    config = json.dumps(serve_config([ServedModel(spec, "/x")], host="127.0.0.1", port=1))
    for secret in ("abab", "cdcd", "password"):
        assert secret not in repr(settings)
        assert secret not in config
        assert secret not in json.dumps(serve_environment())


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_a_missing_setting_is_named(name: str) -> None:
    with pytest.raises(ReplicaMisconfigured, match=name):
        ReplicaSettings.from_environment({key: value for key, value in ENVIRONMENT.items() if key != name})


def test_what_is_compiled_is_kept_for_the_next_start(tmp_path: Path) -> None:
    settings = ReplicaSettings.from_environment({**ENVIRONMENT, "TOKENYARD_REPLICA_DIR": str(tmp_path)})
    assert settings.caches == {
        "VLLM_CACHE_ROOT": str(tmp_path / "cache" / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache" / "torch"),
        "TRITON_CACHE_DIR": str(tmp_path / "cache" / "triton"),
        "NUMBA_CACHE_DIR": str(tmp_path / "cache" / "numba"),
    }


def test_only_layers_that_an_adapter_may_change_are_made_ready_for_it(spec: ModelSpec) -> None:
    engine = llm_config(spec, path="/x", kind="cpu", overrides={})["engine_kwargs"]
    assert spec.lora is not None
    assert engine["lora_target_modules"] == list(spec.lora.target_modules)


def test_the_bound_of_adapters_on_the_disk_is_a_number_of_bytes() -> None:
    assert ReplicaSettings.from_environment(ENVIRONMENT).adapter_disk_bytes == 20 << 30
    told = ReplicaSettings.from_environment({**ENVIRONMENT, "TOKENYARD_ADAPTER_DISK_BYTES": "1000"})
    assert told.adapter_disk_bytes == 1000
    with pytest.raises(ReplicaMisconfigured, match="TOKENYARD_ADAPTER_DISK_BYTES"):
        ReplicaSettings.from_environment({**ENVIRONMENT, "TOKENYARD_ADAPTER_DISK_BYTES": "20GB"})


@pytest.mark.parametrize("value", ["not hex", "abcd"])
def test_a_weak_secret_is_refused(value: str) -> None:
    with pytest.raises(ReplicaMisconfigured, match="TOKENYARD_METER_SECRET"):
        ReplicaSettings.from_environment({**ENVIRONMENT, "TOKENYARD_METER_SECRET": value})
