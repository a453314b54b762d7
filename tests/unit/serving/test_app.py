"""What Serve is asked to run: valid by Ray's own schema, and without a secret."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tokenyard.core.models import ImagesSpec, ModelSpec, ParserSpec, read_model_spec
from tokenyard_deployments.serving.app import (
    ServedModel,
    deployment_options,
    llm_config,
    serve_config,
    serve_environment,
)
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
    assert msgspec.convert(application.args["spec"], ModelSpec) == spec


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
    assert spec.lora is not None
    assert engine["max_cpu_loras"] == spec.lora.max_cpu_loras


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


def test_each_worker_of_the_engine_has_its_own_place(spec: ModelSpec) -> None:
    config = llm_config(
        spec, path="/x", kind="cuda", overrides={"tensor_parallel_size": 4, "pipeline_parallel_size": 2}
    )
    options = deployment_options(spec, config, graceful_shutdown_timeout_s=1)
    assert options["placement_group_bundles"] == [spec.accelerator("cuda").bundle] * 8
    assert options["max_queued_requests"] == -1
    # They inherit their variables from the replica's actor.
    assert options["ray_actor_options"]["runtime_env"] == config["runtime_env"]


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


@pytest.mark.parametrize("value", ["not hex", "abcd"])
def test_a_weak_secret_is_refused(value: str) -> None:
    with pytest.raises(ReplicaMisconfigured, match="TOKENYARD_METER_SECRET"):
        ReplicaSettings.from_environment({**ENVIRONMENT, "TOKENYARD_METER_SECRET": value})
