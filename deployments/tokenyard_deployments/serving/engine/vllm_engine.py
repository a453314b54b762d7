"""Ray's vLLM engine with all that a replica adds to it: pinned to one version, and checked when a replica starts."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import vllm
from prometheus_client import REGISTRY
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm import PoolingParams, SamplingParams
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
from vllm.inputs import TokensPrompt
from vllm.reasoning import ReasoningParserManager
from vllm.sampling_params import RequestOutputKind
from vllm.tool_parsers import ToolParserManager

from tokenyard.core.errors import InvalidRequest, ModelNotFound, Unavailable
from tokenyard_deployments.serving.adapters.files import AdapterRejected
from tokenyard_deployments.serving.engine import cpu_lora, launch
from tokenyard_deployments.serving.engine.grammars.check import GrammarCheck
from tokenyard_deployments.serving.engine.openai_replies import write_openai_replies
from tokenyard_deployments.serving.engine.pinned import PINNED_VERSION, UnknownEngine, require
from tokenyard_deployments.serving.engine.pulse import EnginePulse
from tokenyard_deployments.serving.engine.scheduling.pins import check_scheduler
from tokenyard_deployments.serving.engine.scheduling.report import FairnessMetrics
from tokenyard_deployments.serving.engine.witness import EngineWitness

_LOG = logging.getLogger(__name__)
CANARY_TIMEOUT_S = 60.0
START_SECONDS = "start_seconds"
"""What the engine's workers are asked for by this name: `SeededCpuWorker.start_seconds`."""


class UnknownParser(ValueError):
    """The model's description names a parser that vLLM does not have; the message lists those it has."""


class TokenyardEngine(VLLMEngine):  # type: ignore[misc]
    """Ray's engine with OpenAI's replies, the witness in place before the first request, and what the replica asks."""

    witness: EngineWitness
    _fairness: FairnessMetrics
    _pulse: EnginePulse
    _generates: bool
    _hung = False

    async def start(self) -> None:
        """Start, without Ray's task that would download the model on each node: it is a local folder on all of them.

        Raises:
            UnknownParser: the model's description names one.
            UnknownEngine: this vLLM is not the one that is known here.
        """
        check_parsers(self.llm_config.engine_kwargs)
        write_openai_replies(generates=self.llm_config.engine_kwargs.get("runner") != "pooling")
        self.llm_config.get_or_create_callback().ctx.run_init_node = False
        if self._on_cpu:
            launch.launch_from_server()
        await super().start()
        require(self._oai_models, "lora_requests", "load_lora_adapter", "unload_lora_adapter", "lora_resolver_lock")

    def _start_async_llm_engine(self, arguments: Any, config: Any, placement_group: Any) -> Any:
        if self._on_cpu:
            launch.take_cpu_worker(config)
        self._generates = config.model_config.runner_type == "generate"
        grammars = GrammarCheck(config) if self._generates else None
        client = super()._start_async_llm_engine(arguments, config, placement_group)
        check_engine(client)
        if grammars is not None:
            grammars.guard(client)
        self.witness = EngineWitness(client.output_processor)
        self._fairness = FairnessMetrics(client.output_processor, REGISTRY)
        self._pulse = EnginePulse(client.output_processor)
        return client

    @property
    def _on_cpu(self) -> bool:
        return bool(self.llm_config.accelerator_config.kind == "cpu")

    @property
    def dead(self) -> bool:
        """Whether the engine process is gone, or was given up; it never comes back."""
        return self._hung or bool(self._engine_client.errored)

    @property
    def last_sign(self) -> float:
        """When the engine last did a step, on the monotonic clock."""
        return self._pulse.last_sign

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens that are yet to be computed, as the scheduler last reported."""
        return self._fairness.waiting_tokens

    async def start_seconds(self) -> dict[str, float]:
        """Return what parts of the engine's start took, where it is one that tells."""
        if not self._on_cpu:
            return {}
        (first, *_) = await self._engine_client.collective_rpc(START_SECONDS)
        return dict(first)

    def give_up(self) -> None:
        """Count the engine as dead from now on: it hangs."""
        self._hung = True

    def kill(self) -> None:
        """End the engine's process, also one that is stopped."""
        for process in self._engine_client.engine_core.resources.engine_manager.processes:
            process.kill()

    async def check_health(self) -> None:
        """Raise where the engine is not well."""
        if self._hung:
            raise Unavailable("The engine hangs.")
        await super().check_health()

    async def probe(self) -> None:
        """Let the engine answer one token."""
        prompt, name = TokensPrompt(prompt_token_ids=[1]), f"probe-{uuid4().hex}"
        if self._generates:
            await self._generated(prompt, SamplingParams(temperature=0, max_tokens=1, detokenize=False), name)
        else:
            async for _ in self._engine_client.encode(prompt, PoolingParams(task="embed"), name):
                pass

    async def abort(self, sequences: Iterable[str]) -> None:
        """End sequences now; the witness has their counts when this returns."""
        await self._engine_client.abort(list(sequences), internal=True)

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter; an engine error here is an answer, not the engine's end."""
        answer = await self._oai_models.load_lora_adapter(LoadLoRAAdapterRequest(lora_name=name, lora_path=str(folder)))
        if isinstance(answer, ErrorResponse):
            self._oai_models.lora_resolver_lock.pop(name, None)
            _LOG.warning("vLLM does not take adapter %s: %s", name, answer.error.message)
            if self.dead:
                raise Unavailable("The engine is gone.")
            raise AdapterRejected(f"vLLM does not take adapter {name}")

    async def unload_adapter(self, name: str) -> None:
        """Free the memory, then forget the name: vLLM's own unloading does the second only.

        Where the first fails, all is as it was.
        """
        await self._engine_client.remove_lora(self._oai_models.lora_requests[name].lora_int_id)
        await self._oai_models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))
        self._oai_models.lora_resolver_lock.pop(name, None)

    async def continuation_logprobs(self, adapter: str | None, prompt: str, continuation: str) -> list[float]:
        """Return the log-probability of each token of `continuation` after `prompt`; `adapter` must be resident."""
        if not self._generates:
            raise InvalidRequest("This model makes embeddings and continues nothing.")
        lora = None
        if adapter is not None:
            lora = self._oai_models.lora_requests.get(adapter)
            if lora is None:
                raise ModelNotFound(f"{adapter} is not resident")
        tokenizer = self._engine_client.renderer.tokenizer
        before = tokenizer.encode(prompt)
        tokens = before + tokenizer.encode(continuation, add_special_tokens=False)
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        async with asyncio.timeout(CANARY_TIMEOUT_S):
            output = await self._generated(
                TokensPrompt(prompt_token_ids=tokens), params, f"canary-{uuid4().hex}", lora_request=lora
            )
        steps = output.prompt_logprobs
        return [
            float(step[token].logprob) for token, step in zip(tokens[len(before) :], steps[len(before) :], strict=True)
        ]

    async def _generated(self, prompt: Any, params: SamplingParams, name: str, **more: Any) -> Any:
        params.output_kind = RequestOutputKind.FINAL_ONLY
        return [output async for output in self._engine_client.generate(prompt, params, name, **more)][-1]


def check_engine(client: Any) -> None:
    """Raise `UnknownEngine` where this is not the vLLM that is known here, or does not keep adapters apart."""
    if not vllm.__version__.startswith(PINNED_VERSION):
        raise UnknownEngine(f"vLLM {vllm.__version__} is not {PINNED_VERSION}x")
    require(client, "abort", "collective_rpc", "encode", "engine_core", "errored", "generate", "output_processor")
    require(client, "remove_lora", "renderer")
    require(client.engine_core, "resources")
    require(client.engine_core.resources.engine_manager, "processes")
    check_scheduler()
    if not cpu_lora.installed():
        raise UnknownEngine("the vLLM plugin tokenyard_cpu_lora is not loaded: adapters would mix (VLLM_PLUGINS?)")


def check_parsers(engine: Mapping[str, Any]) -> None:
    """Raise `UnknownParser` where vLLM lacks a parser that is named; it would notice only after it has started."""
    for argument, field, manager in (
        ("tool_call_parser", "tools.parser", ToolParserManager),
        ("reasoning_parser", "reasoning.parser", ReasoningParserManager),
    ):
        name, known = engine.get(argument), sorted(manager.list_registered())
        if name and name not in known:
            raise UnknownParser(f"`{field}` of the model is {name!r}, which vLLM does not know: {', '.join(known)}")
