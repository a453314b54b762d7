"""What Ray and vLLM say of a model's file: `python -m tokenyard_deployments.serving.model_check <file> <kind>`.

Both work out their own configuration, as they do where a replica starts, and nothing is started. vLLM does so with
`--folder`, the model's files; without, only the names of its arguments are looked at. A GPU is imagined where there is
none. Standard output is one JSON object:
`{"found": {...}}` or `{"error": ...}`; the exit status is 0 or 1.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import InvalidModelSpec, ModelSpec
from tokenyard_deployments.serving.app import ServedModel, build, deployment_options, llm_config, serve_config
from tokenyard_deployments.serving.engine.imagined_gpu import imagine_gpu


class CheckFailed(Exception):
    """Ray or vLLM would not take the model; the message is theirs, with what it is about."""


class CheckedModel(msgspec.Struct, frozen=True):
    """How a replica would lie in the cluster. `gpu` is imagined, real or none; `files` are the model's own, if seen."""

    id: str
    kind: str
    workers: int
    bundle_per_worker: dict[str, float]
    placement: str
    gpu: str
    files: str | None


def check(spec: ModelSpec, kind: str, folder: Path | None) -> CheckedModel:
    """Ask both. It changes what this process takes for its machine: one process is for one check.

    Raises:
        InvalidModelSpec: the file says nothing of `kind`.
        CheckFailed: one of the two refuses.
    """
    config = llm_config(spec, path=str(folder or spec.id), kind=kind, overrides={})
    os.environ.update(config["runtime_env"]["env_vars"])
    gpu = _gpu(kind)
    options = deployment_options(spec, config)
    _ask("Ray Serve", lambda: _ask_serve(spec, kind))
    engine = _ask("Ray's LLM engine", lambda: _ask_ray(config, options))
    _ask("vLLM", lambda: _ask_vllm(config, engine, with_model=folder is not None))
    placement = config["placement_group_config"]
    return CheckedModel(
        spec.id,
        kind,
        len(options["placement_group_bundles"]),
        placement["bundle_per_worker"],
        placement["strategy"],
        gpu,
        None if folder is None else str(folder),
    )


def _gpu(kind: str) -> str:
    import torch  # noqa: PLC0415

    if kind != "cuda":
        return "none"
    if torch.cuda.is_available():
        return "real"
    imagine_gpu()
    return "imagined"


def _ask(who: str, question: Any) -> Any:
    try:
        return question()
    # They raise whatever they like, and all of it is what they say of the model.
    except Exception as error:
        raise CheckFailed(f"{who} does not take it: {_in_words(error)}") from error


def _in_words(error: Exception) -> str:
    parts = getattr(error, "errors", None)  # pydantic's
    if callable(parts):
        return "; ".join(_part_in_words(part) for part in parts())
    return str(error).strip() or repr(error)


def _part_in_words(part: dict[str, Any]) -> str:
    where = ".".join(map(str, part.get("loc", ())))
    return f"{where}: {part['msg']}" if where else str(part["msg"])


def _ask_serve(spec: ModelSpec, kind: str) -> None:
    from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415

    config: dict[str, Any] = serve_config([ServedModel(spec, f"/{spec.id}", kind)], host="127.0.0.1", port=8000)
    ServeDeploySchema(**config)
    build(config["applications"][0]["args"])


def _ask_ray(config: dict[str, Any], options: dict[str, Any]) -> Any:
    from ray.serve.llm import LLMConfig  # noqa: PLC0415

    engine = LLMConfig(**config).get_engine_config()
    if engine.placement_bundles != options["placement_group_bundles"]:
        raise CheckFailed(f"its bundles would be {engine.placement_bundles}")
    return engine


def _ask_vllm(config: dict[str, Any], engine: Any, *, with_model: bool) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415
    from vllm.model_executor.model_loader import get_model_loader  # noqa: PLC0415

    from tokenyard_deployments.serving.engine.vllm_engine import check_parsers  # noqa: PLC0415

    check_parsers(config["engine_kwargs"])
    if with_model:  # its own config decides what may be said
        vllm = AsyncEngineArgs(**engine.get_initialization_kwargs()).create_engine_config()
        get_model_loader(vllm.load_config)  # it alone knows which formats and settings there are


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tokenyard_deployments.serving.model_check", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("kind")
    parser.add_argument("--folder", type=Path, help="the model's files")
    chosen = parser.parse_args(arguments)
    try:
        found = check(read_model_spec(chosen.file.read_bytes()), chosen.kind, chosen.folder)
    except (InvalidModelSpec, CheckFailed, OSError) as error:
        _say({"error": str(error)})
        return 1
    _say({"found": msgspec.to_builtins(found)})
    return 0


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
