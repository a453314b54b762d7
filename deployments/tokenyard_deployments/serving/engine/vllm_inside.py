"""Everything that touches vLLM's and Ray's inside, pinned to one version and checked when a replica starts."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import vllm
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm import SamplingParams
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
from vllm.inputs import TokensPrompt

from tokenyard.core.errors import ModelNotFound, Unavailable
from tokenyard.core.usage import TokenUsage
from tokenyard_deployments.serving.adapters.files import AdapterRejected
from tokenyard_deployments.serving.engine import cpu_lora, launch
from tokenyard_deployments.serving.engine.meter import CURRENT_METER, Meter

_LOG = logging.getLogger(__name__)
PINNED_VERSION = "0.32."
CANARY_TIMEOUT_S = 60.0


class UnknownEngine(RuntimeError):
    """This vLLM is not the one that this module knows: usage or isolation could be wrong, so nothing is served."""


class TokenyardEngine(VLLMEngine):  # type: ignore[misc]
    """Ray's engine, with the witness in place before the first request, and what the replica asks of it."""

    witness: "Witness"

    async def start(self) -> None:
        """Start, without Ray's task that would download the model on each node: it is a local folder on all of them."""
        self.llm_config.get_or_create_callback().ctx.run_init_node = False
        if self._on_cpu:
            launch.launch_from_server()
        await super().start()

    def _start_async_llm_engine(self, arguments: Any, config: Any, placement_group: Any) -> Any:
        if self._on_cpu:
            launch.keep_worker_inside(config)
        client = super()._start_async_llm_engine(arguments, config, placement_group)
        check_engine(client)
        self.witness = Witness(client.output_processor)
        return client

    @property
    def _on_cpu(self) -> bool:
        return bool(self.llm_config.accelerator_config.kind == "cpu")

    def check_app(self) -> None:
        """Look whether the served models are where this module expects them.

        Raises:
            UnknownEngine: they are not.
        """
        _require(self._oai_models, "lora_requests", "load_lora_adapter", "unload_lora_adapter", "lora_resolver_lock")

    @property
    def dead(self) -> bool:
        """Tell whether the engine process is gone; it never comes back."""
        return bool(self._engine_client.errored)

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
        """Forget the name, then free the memory: vLLM's own unloading does the first only."""
        request = self._oai_models.lora_requests[name]
        await self._oai_models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))
        self._oai_models.lora_resolver_lock.pop(name, None)
        await self._engine_client.remove_lora(request.lora_int_id)

    async def continuation_logprobs(self, adapter: str | None, prompt: str, continuation: str) -> list[float]:
        """Return the log-probability of each token of `continuation` after `prompt`.

        Raises:
            ModelNotFound: `adapter` is not resident.
        """
        lora = None
        if adapter is not None:
            lora = self._oai_models.lora_requests.get(adapter)
            if lora is None:
                raise ModelNotFound(f"{adapter} is not resident")
        tokenizer = self._engine_client.renderer.tokenizer
        before = tokenizer.encode(prompt)
        tokens = before + tokenizer.encode(continuation, add_special_tokens=False)
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        steps: list[Any] = []
        async with asyncio.timeout(CANARY_TIMEOUT_S):
            async for output in self._engine_client.generate(
                TokensPrompt(prompt_token_ids=tokens), params, f"canary-{uuid4().hex}", lora_request=lora
            ):
                steps = output.prompt_logprobs or steps
        return [
            float(step[token].logprob) for token, step in zip(tokens[len(before) :], steps[len(before) :], strict=True)
        ]


class Witness:
    """Reads each sequence's tokens where vLLM's output processor finishes or aborts it.

    Wrapping `generate()` would see nothing of an aborted request that did not stream.
    """

    def __init__(self, processor: Any) -> None:
        self._meters: dict[str, Meter] = {}
        self._states: dict[str, Any] = processor.request_states
        self._add: Callable[..., None] = processor.add_request
        self._finish: Callable[..., None] = processor._finish_request
        self._abort: Callable[..., list[str]] = processor.abort_requests
        processor.add_request = self._on_add
        processor._finish_request = self._on_finish
        processor.abort_requests = self._on_abort

    def _on_add(self, request: Any, *args: Any, **kwargs: Any) -> None:
        self._add(request, *args, **kwargs)
        meter = CURRENT_METER.get()
        sequence = request.request_id
        if meter is None or sequence in self._meters:
            return
        state = self._states[sequence]
        self._meters[sequence] = meter
        meter.started(sequence, _prompt_of(state), state.prompt_len)

    def _on_finish(self, state: Any) -> None:
        self._count(state.request_id, state, aborted=False)
        self._finish(state)

    def _on_abort(self, request_ids: Iterable[str], internal: bool) -> list[str]:
        before = {sequence: self._states.get(sequence) for sequence in self._meters}
        aborted = self._abort(request_ids, internal)
        for sequence, state in before.items():
            if state is not None and sequence not in self._states:
                self._count(sequence, state, aborted=True)
        return aborted

    def _count(self, sequence: str, state: Any, *, aborted: bool) -> None:
        meter = self._meters.pop(sequence, None)
        if meter is not None:
            usage = TokenUsage(
                prompt_tokens=state.prompt_len,
                completion_tokens=state.detokenizer.num_output_tokens() if state.detokenizer else 0,
                cached_tokens=state.num_cached_tokens,
            )
            meter.ended(sequence, _prompt_of(state), usage, aborted=aborted)


def check_engine(client: Any) -> None:
    """Look whether this is the vLLM that the module knows, and whether it keeps adapters apart.

    Raises:
        UnknownEngine: it is not, or it does not.
    """
    if not vllm.__version__.startswith(PINNED_VERSION):
        raise UnknownEngine(f"vLLM {vllm.__version__} is not {PINNED_VERSION}x")
    _require(client, "abort", "generate", "remove_lora", "errored", "output_processor", "renderer")
    _require(client.output_processor, "request_states", "add_request", "_finish_request", "abort_requests")
    if not cpu_lora.installed():
        raise UnknownEngine("the vLLM plugin tokenyard_cpu_lora is not loaded: adapters would mix (VLLM_PLUGINS?)")


def _require(owner: Any, *names: str) -> None:
    missing = [name for name in names if not hasattr(owner, name)]
    if missing:
        raise UnknownEngine(f"{type(owner).__name__} of vLLM {vllm.__version__} has no {', '.join(missing)}")


def _prompt_of(state: Any) -> str:
    parent = state.parent_req
    return str(parent.request_id if parent is not None else state.request_id)
