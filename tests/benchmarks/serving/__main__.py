"""What the platform makes of the engine: streams of the base model, of one adapter and of 32, through everything.

Beside it stands vLLM's own server, once with the engine settings of a replica and once with the best ones of its own.
All run at once and are asked in turn, round by round. Prints a table and writes its part of build/bench/serving.json.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import openai
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.fairness_engines import median_ratio, model_folder, vllm_server
from benchmarks.figures import add_figures
from benchmarks.serving.load import Target, stream, tokens_per_s
from benchmarks.serving.tenant import Tenant, wrong_rows
from support.servers.whole_stack import MODEL, Stack, private_environment, replica_url, start, stop
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard_deployments.base_models.fetch import shipped_specs
from tokenyard_deployments.serving.app import llm_config
from tokenyard_deployments.serving.engine.cpus import thread_settings
from tokenyard_deployments.serving.engine.scheduling.settings import scheduler_arguments
from tokenyard_deployments.serving.start_phases import START_SECONDS

STREAMS, MANY = (1, 8, 32, 64), 32
ROUNDS, FIRST_TOKENS = 3, 15
ADAPTERS = 32
RESTART_LIMIT_S = 180.0
SAME, BEST = "vLLM, same settings", "vLLM, its best settings"
BASE, ONE, ALL = "everything, base", "everything, one adapter", f"everything, {ADAPTERS} adapters"


@dataclass
class Rounds:
    """Tokens a second of each round, by who was asked and by how many streams; TTFT of a lone request in seconds."""

    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    first_s: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, ours: str, other: str, streams: int) -> float:
        return round(median_ratio(self.rates[ours, streams], self.rates[other, streams]), 3)


def measure(folder: Path) -> dict[str, float]:
    stack = start(private_environment(folder))
    try:
        with ExitStack() as engines:
            same = engines.enter_context(vllm_server(folder / "same.log", *same_settings()))
            best = engines.enter_context(vllm_server(folder / "best.log", *best_settings()))
            return asyncio.run(_measure(stack, folder, {SAME: Target(same, [MODEL]), BEST: Target(best, [MODEL])}))
    finally:
        stop(stack)


def same_settings() -> tuple[Mapping[str, object], Mapping[str, str]]:
    """Return the engine arguments and the environment of a replica, without what is ours in either."""
    spec = read_model_spec((shipped_specs() / f"{MODEL}.yaml").read_bytes())
    config = llm_config(spec, path=str(model_folder()), kind="cpu", overrides={})
    arguments = {**config["engine_kwargs"], "disable_log_stats": True}
    for name in scheduler_arguments(spec.accelerator("cpu").fairness):
        del arguments[name]
    environment = config["runtime_env"]["env_vars"]
    return arguments, {**environment, **thread_settings(environment), "VLLM_PLUGINS": "none"}


def best_settings() -> tuple[Mapping[str, object], Mapping[str, str]]:
    """Return vLLM's own defaults, with as much memory and as many threads: compiled, 2,048 tokens a step, no LoRA.

    Measured at 32 streams on two cores: 520 tokens/s, against 452–465 uncompiled and 387 with LoRA.
    """
    arguments, environment = same_settings()
    kept = ("max_model_len", "dtype", "kv_cache_memory_bytes", "block_size", "disable_log_stats")
    own = {name: value for name, value in environment.items() if name != "TORCH_COMPILE_DISABLE"}
    return {name: arguments[name] for name in kept if name in arguments}, own


async def _measure(stack: Stack, folder: Path, bare: Mapping[str, Target]) -> dict[str, float]:
    _, client = stack.tenant("bench")
    key = {"authorization": f"Bearer {client.api_key}"}
    base = Target(stack.url, [MODEL], key)
    patient = openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=client.api_key, timeout=300)
    _say(f"{ADAPTERS} adapters are brought")
    tenant = Tenant(patient, base, model_folder())
    adapters, first_token_s = await tenant.bring(folder / "adapters", ADAPTERS)
    ours = {BASE: base, ONE: Target(stack.url, adapters[:1], key), ALL: Target(stack.url, adapters, key)}
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        rounds = await _rounds(http, {**ours, **bare})
        wrong = await wrong_rows(http, base, adapters)
        restart_s = await _restart_s(http, stack, base)
        phases = await _phases(http, stack)
    _print_table(rounds, phases)
    return {
        **{f"tokens_per_s_{streams}": round(statistics.median(rounds.rates[BASE, streams]), 1) for streams in STREAMS},
        **{f"tokens_per_s_ratio_{streams}": rounds.ratio(BASE, SAME, streams) for streams in STREAMS},
        "best_settings_ratio_32": rounds.ratio(BASE, BEST, MANY),
        "ttft_added_ms_1": round(
            1000 * (statistics.median(rounds.first_s[BASE]) - statistics.median(rounds.first_s[SAME])), 1
        ),
        "lora_ratio_32": rounds.ratio(ALL, BASE, MANY),
        "lora_one_adapter_ratio_32": rounds.ratio(ONE, BASE, MANY),
        "mixed_rows_wrong": wrong,
        "first_token_after_job_s": round(first_token_s, 2),
        "restart_to_ready_s": round(restart_s, 1),
        **{f"start_{phase}_s": round(seconds, 1) for phase, seconds in phases.items()},
    }


async def _rounds(http: aiohttp.ClientSession, targets: Mapping[str, Target]) -> Rounds:
    """Ask one after the other, so that a machine that slows down slows all; only one is busy at a time."""
    measured = Rounds()
    for target in targets.values():
        await tokens_per_s(http, target, MANY, 0)  # warm
    for number in range(1, ROUNDS + 1):
        _say(f"round {number} of {ROUNDS}")
        for streams in STREAMS:
            for name, target in _turned(list(targets.items()), number):
                rate = await tokens_per_s(http, target, streams, number)
                measured.rates.setdefault((name, streams), []).append(rate)
    for number in range(FIRST_TOKENS):
        for name in (BASE, SAME):
            first_s = await stream(http, targets[name], 0, 1000 + number, 2)
            measured.first_s.setdefault(name, []).append(first_s)
    return measured


def _turned(targets: Sequence[tuple[str, Target]], number: int) -> Sequence[tuple[str, Target]]:
    return targets if number % 2 else targets[::-1]


async def _restart_s(http: aiohttp.ClientSession, stack: Stack, target: Target) -> float:
    """Kill the replica; return how long it is until a request is answered again."""
    (replica,) = stack.replicas()
    replica.kill()
    began = time.monotonic()
    body = {"model": MODEL, "prompt": "Hello", "max_tokens": 1}
    async with asyncio.timeout(RESTART_LIMIT_S):
        while True:
            async with http.post(f"{target.url}/v1/completions", json=body, headers=target.headers) as answer:
                if answer.status == 200:
                    return time.monotonic() - began
            await asyncio.sleep(0.1)


async def _phases(http: aiohttp.ClientSession, stack: Stack) -> dict[str, float]:
    """Return what the new replica says of its start, in seconds by phase."""
    headers = {"authorization": f"Bearer {stack.replica_bearer}"}
    async with http.get(f"{await replica_url(stack)}/metrics", headers=headers) as answer:
        families = text_string_to_metric_families(await answer.text())
    return {
        sample.labels["phase"]: sample.value
        for family in families
        if family.name == START_SECONDS
        for sample in family.samples
    }


def _print_table(rounds: Rounds, phases: Mapping[str, float]) -> None:
    for (name, streams), rates in rounds.rates.items():
        spread = f"{min(rates):.0f}–{max(rates):.0f}"
        _say(f"{name:30} {streams:3} streams  {statistics.median(rates):6.1f} tokens/s  ({spread})")
    for phase, seconds in phases.items():
        _say(f"start: {phase:12} {seconds:5.1f} s")


def _say(text: str) -> None:
    print(f"  {text}", flush=True)  # noqa: T201


def main() -> None:
    _say("everything beside vLLM's own server, twice ...")
    with tempfile.TemporaryDirectory(prefix="tokenyard-bench-", ignore_cleanup_errors=True) as name:
        figures = measure(Path(name))
    add_figures("serving", figures)


if __name__ == "__main__":
    main()
