"""Runs rows alone and mixed on a real engine and prints both as JSON: `mixed_batch.py <base> <adapter>...`.

A process of its own, because the engine loads its plugins from the environment it starts in.
"""

import json
import sys
from typing import Any

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from tokenyard.core.adapters import LINEAR_LAYERS

SLOTS = 2
TOKENS = 12
PROMPT = "The three things that matter most in a good kitchen are"


def answer(output: Any) -> dict[str, Any]:
    best = output.outputs[0]
    return {
        "tokens": list(best.token_ids),
        "logprobs": [step[token].logprob for token, step in zip(best.token_ids, best.logprobs, strict=True)],
    }


def main() -> None:
    base, *folders = sys.argv[1:]
    engine = LLM(
        base,
        dtype="float32",  # so that the shape of a batch moves no greedy choice
        max_model_len=256,
        max_num_seqs=16,
        max_num_batched_tokens=128,
        kv_cache_memory_bytes=256 << 20,
        enforce_eager=True,
        enable_prefix_caching=False,
        enable_lora=True,
        max_loras=SLOTS,
        max_cpu_loras=8,
        max_lora_rank=8,
        lora_target_modules=list(LINEAR_LAYERS),
        disable_log_stats=True,
    )
    adapters = [None, *(LoRARequest(f"adapter-{n}", n, folder) for n, folder in enumerate(folders, 1))]
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, logprobs=0)

    def run(rows: list[Any]) -> list[dict[str, Any]]:
        outputs = engine.generate([PROMPT] * len(rows), params, lora_request=rows, use_tqdm=False)
        return [answer(output) for output in outputs]

    alone = [run([adapter])[0] for adapter in adapters]
    # Every adapter twice, the base between them; more adapters than slots.
    order = [row for turn in range(2) for row in range(len(adapters))] + [0]
    mixed = run([adapters[row] for row in order])
    print("RESULT " + json.dumps({"alone": alone, "order": order, "mixed": mixed}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
