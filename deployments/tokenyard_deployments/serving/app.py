"""What Ray Serve deploys: one application for each model, and the config that asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tokenyard.core.models import ModelSpec, ModelTask
from tokenyard_deployments.serving.autoscaling import autoscaling_config
from tokenyard_deployments.serving.engine.scheduling.settings import scheduler_arguments

IMPORT_PATH = "tokenyard_deployments.serving.app:build"

# Serve's own bounds stay out of the way: the replica's queue answers, and internal routes are never blocked.
_NO_LIMIT = 100_000
_HEALTH_CHECK_PERIOD_S = 2.0
# Models and adapters are local; nothing is fetched or told from inside a replica.
_REPLICA_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
# vLLM compiles single functions as a request first needs one, and stands still for everybody meanwhile: 16 s for the
# first `logprobs` on two cores. Where the model itself is not compiled, they are run as they are.
_EAGER_ENVIRONMENT = {"TORCH_COMPILE_DISABLE": "1"}
_HEALTH_CHECK_TIMEOUT_S = 30.0
_UNKNOWN_TO_REPLICAS = frozenset(
    {"autoscaling", "description", "fallback", "license", "max_surge_percent", "replicas", "sampling", "training"}
)
# The workers of a CPU are processes of the replica, so all on its node.
_PLACEMENT = {"cpu": "STRICT_PACK", "cuda": "PACK"}


def serve_environment() -> dict[str, str]:
    """Return what the environment of every Ray node must hold before Serve starts, beside `replica_settings`."""
    return {
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # Ray's 15 would put the engine below everything else on the machine; training makes itself nicer than this.
        "RAY_worker_niceness": "0",
    }


def node_resource(kind: str) -> str:
    """Return the resource that a Ray node of this kind has (`ray start --resources`), if there are several kinds."""
    return f"tokenyard_{kind}"


@dataclass(frozen=True)
class ServedModel:
    """A model to deploy: `path` is its local folder on every node, `kind` is `cpu` or `cuda`."""

    spec: ModelSpec
    path: str
    kind: str = "cpu"


def serve_config(
    models: Sequence[ServedModel],
    *,
    host: str,
    port: int,
    graceful_shutdown_timeout_s: float | None = None,
    engine: dict[str, object] | None = None,
) -> dict[str, object]:
    """Return the body of `PUT /api/serve/applications/`, which is also a RayService's `serveConfigV2`.

    `host` and `port` are of Serve's proxy; replicas listen on the same host. A replica that ends has as long for what
    is inside as a request may take, or `graceful_shutdown_timeout_s`. `engine` overrides engine arguments.

    Whatever changes in `args` starts every replica of the model anew, one after the other and each new one first; so
    does, by Serve's own rule, that a model begins or ceases to scale. What else changes in `deployments` does not.
    """
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": host, "port": port},
        "applications": [
            {
                "name": model.spec.id,
                "route_prefix": f"/{model.spec.id}",
                "import_path": IMPORT_PATH,
                "args": {
                    "spec": replica_spec(model.spec, model.kind),
                    "path": model.path,
                    "kind": model.kind,
                    "engine": engine or {},
                },
                "deployments": [
                    {"name": deployment_name(model.spec), **_scale(model.spec, graceful_shutdown_timeout_s)}
                ],
            }
            for model in models
        ],
    }


def replica_spec(spec: ModelSpec, kind: str) -> dict[str, Any]:
    """Return the description without what a replica on `kind` need not know."""
    stated: dict[str, Any] = msgspec.to_builtins(spec)
    known = {name: value for name, value in stated.items() if name not in _UNKNOWN_TO_REPLICAS}
    return {**known, "accelerators": {kind: msgspec.to_builtins(spec.accelerator(kind))}}


def deployment_name(spec: ModelSpec) -> str:
    return f"Replica:{spec.id.replace('.', '_')}"


def _scale(spec: ModelSpec, graceful_shutdown_timeout_s: float | None) -> dict[str, Any]:
    timeout_s = spec.max_request_s if graceful_shutdown_timeout_s is None else graceful_shutdown_timeout_s
    count: dict[str, Any] = {"num_replicas": spec.replicas}
    if spec.autoscaling is not None:
        count = {"autoscaling_config": autoscaling_config(spec.autoscaling, spec.replicas)}
    return {
        "name": deployment_name(spec),
        **count,
        "max_surge_percent": spec.max_surge_percent,
        "graceful_shutdown_timeout_s": timeout_s,
    }


def build(args: dict[str, Any]) -> Any:
    """Return the Serve application of one model; Serve calls it with an application's `args`.

    Serve does so in a process of its own that then ends: what it imports delays every start. `ReplicaServer` loads vLLM
    itself, in the process that serves.
    """
    # This module is also imported to write a config, where there is no Ray.
    from ray import serve  # noqa: PLC0415

    from tokenyard_deployments.serving.replica import ReplicaServer  # noqa: PLC0415

    spec = msgspec.convert(args["spec"], ModelSpec)
    config = llm_config(spec, path=args["path"], kind=args["kind"], overrides=args.get("engine", {}))
    options = deployment_options(spec, config)
    return serve.deployment(serve.ingress()(ReplicaServer), **options).bind(llm_config=config, spec=spec)


def deployment_options(spec: ModelSpec, config: dict[str, Any]) -> dict[str, Any]:
    """Return Serve's options; each of the engine's workers takes one bundle, and the replica is with the first."""
    engine, placement = config["engine_kwargs"], config["placement_group_config"]
    workers = engine["tensor_parallel_size"] * engine["pipeline_parallel_size"]
    # For a `runtime_env` Ray starts a process anew. The replica sets the variables itself; only the workers that vLLM
    # starts through Ray must inherit them, and on a CPU there are none.
    on_cpu = config["accelerator_config"]["kind"] == "cpu"
    return {
        "name": deployment_name(spec),
        "placement_group_bundles": [placement["bundle_per_worker"]] * workers,
        "placement_group_strategy": placement["strategy"],
        "ray_actor_options": {"num_cpus": 0, **({} if on_cpu else {"runtime_env": config["runtime_env"]})},
        "max_ongoing_requests": _NO_LIMIT,
        "max_queued_requests": -1,
        "health_check_period_s": _HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": _HEALTH_CHECK_TIMEOUT_S,
    }


def llm_config(spec: ModelSpec, *, path: str, kind: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of Ray's `LLMConfig`."""
    accelerator = spec.accelerator(kind)
    engine: dict[str, Any] = {
        "max_model_len": spec.context_length,
        "tensor_parallel_size": accelerator.tensor_parallel_size,
        "pipeline_parallel_size": accelerator.pipeline_parallel_size,
        "enable_prompt_tokens_details": True,
        "enable_prefix_caching": True,
        # A server's own defaults must not add to what the client sent.
        "generation_config": "vllm",
        "enable_log_requests": False,
        **scheduler_arguments(accelerator.fairness),
        **accelerator.engine,
        **overrides,
    }
    if accelerator.quantization is not None:
        engine["quantization"] = accelerator.quantization
    if spec.lora is not None:
        engine |= {
            "enable_lora": True,
            "max_loras": accelerator.lora_room.max_loras,
            "max_cpu_loras": accelerator.lora_room.max_cpu_loras,
            "max_lora_rank": spec.lora.max_lora_rank,
            # Others would take memory and time in every step, and no adapter may change them.
            "lora_target_modules": list(spec.lora.target_modules),
        }
    if spec.task is ModelTask.EMBEDDING:
        engine |= _embedding_arguments(spec)
    if spec.tool_parser is not None:
        engine |= {"enable_auto_tool_choice": True, "tool_call_parser": spec.tool_parser}
    if spec.reasoning_parser is not None:
        engine["reasoning_parser"] = spec.reasoning_parser
    if spec.images is not None:
        engine["limit_mm_per_prompt"] = {"image": spec.images.max_in_request}
    eager = kind == "cpu" and bool(engine.get("enforce_eager") or engine.get("enable_lora"))
    environment = {**_REPLICA_ENVIRONMENT, **(_EAGER_ENVIRONMENT if eager else {}), **accelerator.env}
    return {
        "model_loading_config": {"model_id": spec.id, "model_source": path},
        "accelerator_config": {"kind": "gpu" if kind == "cuda" else kind},
        "placement_group_config": {
            "bundle_per_worker": {**accelerator.bundle_per_worker, **_own_nodes(spec, kind)},
            "strategy": accelerator.placement or _PLACEMENT[kind],
        },
        "engine_kwargs": engine,
        # The engine's metrics stay on the replica's own `/metrics`.
        "log_engine_metrics": False,
        "runtime_env": {"env_vars": environment},
    }


def _own_nodes(spec: ModelSpec, kind: str) -> dict[str, float]:
    """Return what else a bundle asks for, so that it lies on a node whose vLLM is of the model's kind."""
    return {} if spec.runs_on is None else {node_resource(kind): 0.001}


def _embedding_arguments(spec: ModelSpec) -> dict[str, Any]:
    engine: dict[str, Any] = {
        "runner": "pooling",
        "convert": "embed",
        # Its answers do not say what the cache gave, and the two witnesses must agree.
        "enable_prefix_caching": False,
    }
    if len(spec.dimensions) > 1:
        engine["hf_overrides"] = {"matryoshka_dimensions": list(spec.dimensions)}
    return engine
