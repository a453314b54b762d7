"""vLLM's scheduler without a model: each step it says what to compute, and gets tokens that nobody computed."""

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from vllm import PoolingParams, SamplingParams
from vllm.config import LoRAConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.request import LoRARequest
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from tokenyard.core.model_files.accelerators import FairnessSpec
from tokenyard_deployments.serving.engine.scheduling.scheduler import fair_scheduler
from tokenyard_deployments.serving.engine.scheduling.settings import scheduler_arguments

BLOCK = 16
_TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "vocab_size": 64,
    "max_position_embeddings": 8192,
    "torch_dtype": "float32",
}


def engine_config(folder: Path, *, slots: int, step_tokens: int, fairness: FairnessSpec, loras: int) -> VllmConfig:
    (folder / "config.json").write_text(json.dumps(_TINY))
    config = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        max_model_len=8192,
        max_num_seqs=slots,
        max_num_batched_tokens=step_tokens,
        block_size=BLOCK,
        enforce_eager=True,
        enable_prefix_caching=True,
        kv_cache_memory_bytes=1 << 20,
        **scheduler_arguments(fairness),
    ).create_engine_config()
    if loras:
        config.lora_config = LoRAConfig(max_loras=loras, max_lora_rank=8)
    return config


class SteppedEngine:
    """`depth` steps are scheduled before the first of them is answered: 1 is a CPU, 2 asynchronous scheduling."""

    def __init__(
        self,
        config: VllmConfig,
        *,
        blocks: int,
        depth: int = 1,
        make: Callable[..., Scheduler] = fair_scheduler,
    ) -> None:
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(BLOCK, sha256)
        self._depth = depth
        # What was scheduled, and who generates a token in it.
        self._in_flight: deque[tuple[SchedulerOutput, set[str]]] = deque()
        config.scheduler_config.async_scheduling = depth > 1
        config.cache_config.num_gpu_blocks = blocks
        group = KVCacheGroupSpec(
            ["layer"], FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.float32)
        )
        self.scheduler = make(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[group]),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
            log_stats=True,
        )
        self.steps = 0
        self.started: dict[str, int] = {}
        """When each sequence got its first token, in steps."""
        self.finished: dict[str, int] = {}
        """When each sequence ended."""
        self.tokens: Counter[str] = Counter()
        """How many tokens of each sequence came out."""
        self.service: Counter[str] = Counter()
        """What each organization was given: 1 for a prompt token, 2 for a generated one; the same work counts once."""
        self.preemptions = 0
        self.reports: list[dict[str, Any]] = []
        """What the scheduler added to vLLM's statistics."""
        self._organizations: dict[str, str] = {}
        self._computed: Counter[str] = Counter()

    def add(
        self,
        name: str,
        organization: str,
        prompt: int | list[int],
        max_tokens: int,
        *,
        weight: int = 1,
        adapter: int | None = None,
        pooled: bool = False,
    ) -> Request:
        """Send a prompt of token ids, or of so many that no other sequence has."""
        ids = prompt if isinstance(prompt, list) else [hash((name, at)) % 1_000_000 for at in range(prompt)]
        request = Request(
            request_id=name,
            prompt_token_ids=ids,
            sampling_params=None if pooled else SamplingParams(max_tokens=max_tokens, ignore_eos=True),
            pooling_params=PoolingParams(task="embed") if pooled else None,
            arrival_time=float(len(self._organizations)),
            lora_request=None if adapter is None else LoRARequest(str(adapter), adapter, "/nowhere"),
            trace_headers={"tokenyard-organization": organization, "tokenyard-weight": str(weight)},
            block_hasher=self._hasher,
        )
        self._organizations[name] = organization
        self.scheduler.add_request(request)
        return request

    def abort(self, *names: str) -> None:
        self.scheduler.finish_requests(names, RequestStatus.FINISHED_ABORTED)

    def step(self) -> Mapping[str, int]:
        """Schedule a step and answer the oldest under way; return how many tokens of each sequence were scheduled."""
        self.steps += 1
        output = self.scheduler.schedule()
        self.preemptions += len(output.preempted_req_ids or ())
        requests = self.scheduler.requests
        for name, tokens in output.num_scheduled_tokens.items():
            self._serve(requests[name], tokens)
        self._in_flight.append((output, {one for one in output.num_scheduled_tokens if self._generates(requests[one])}))
        if len(self._in_flight) >= self._depth:
            self._answer(*self._in_flight.popleft())
        return dict(output.num_scheduled_tokens)

    def waiting(self, organization: str) -> int:
        """Return how many sequences of an organization have not begun."""
        return sum(self._organizations[one.request_id] == organization for one in self.scheduler.waiting)

    def run(self, steps: int = 100_000) -> None:
        """Step until nothing is left to do, at most so often."""
        for _ in range(steps):
            if not self.scheduler.has_requests():
                break
            self.step()
        while self._in_flight:
            self._answer(*self._in_flight.popleft())

    def _serve(self, request: Request, tokens: int) -> None:
        name, end = request.request_id, request.num_computed_tokens
        for position in range(max(end - tokens, self._computed[name]), end):
            self.service[self._organizations[name]] += 1 if position < request.num_prompt_tokens else 2
        self._computed[name] = max(self._computed[name], end)

    @staticmethod
    def _generates(request: Request) -> bool:
        return request.pooling_params is None and not request.is_prefill_chunk

    def _answer(self, output: SchedulerOutput, generating: set[str]) -> None:
        names = list(output.num_scheduled_tokens)
        requests = {name: self.scheduler.requests.get(name) for name in names}
        answer = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: at for at, name in enumerate(names)},
            sampled_token_ids=[[7] if name in generating else [] for name in names],
            pooler_output=[torch.zeros(1) if one and one.pooling_params else None for one in requests.values()],
        )
        outputs = self.scheduler.update_from_output(output, answer)
        for one in outputs.values():
            if one.scheduler_stats is not None and one.scheduler_stats.ec_connector_stats is not None:
                self.reports.append(one.scheduler_stats.ec_connector_stats["tokenyard"])
            for sequence in one.outputs:
                if sequence.new_token_ids or sequence.pooling_output is not None:
                    self.started.setdefault(sequence.request_id, self.steps)
                self.tokens[sequence.request_id] += len(sequence.new_token_ids)
                if sequence.finish_reason is not None:
                    self.finished[sequence.request_id] = self.steps
