"""`make bench-fairness`: prints a table and writes build/bench/fairness.json."""

import statistics
import tempfile
from pathlib import Path

from benchmarks import fairness_engines, fairness_stack
from benchmarks.fairness_engines import median_ratio
from benchmarks.figures import write_figures


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tokenyard-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        print("two engines side by side, vLLM's own scheduler and ours (ten rounds) ...", flush=True)  # noqa: T201
        own, ours = fairness_engines.measure(folder)
        print("through everything (one start, six loads, two shares) ...", flush=True)  # noqa: T201
        (folder / "stack").mkdir()
        stack = fairness_stack.measure(folder / "stack")
    alone = stack.alone.p95_s
    write_figures(
        "fairness",
        {
            "fair_gap_over_bound_1_1": round(stack.gaps_over_bound["1_1"], 3),
            "fair_gap_over_bound_1_3": round(stack.gaps_over_bound["1_3"], 3),
            "victim_ttft_alone_p50_s": round(stack.alone.p50_s, 3),
            "victim_ttft_alone_p95_s": round(alone, 3),
            "victim_ttft_ratio_32": round(stack.beside["32_streams"].p95_s / alone, 2),
            "victim_ttft_ratio_64": round(stack.beside["64_streams"].p95_s / alone, 2),
            "victim_ttft_wide_request_s": round(stack.beside["wide_request"].p95_s, 3),
            "victim_ttft_long_prompt_s": round(stack.beside["long_prompt"].p95_s, 3),
            "victim_ttft_long_prompts_8_s": round(stack.beside["8_long_prompts"].p95_s, 3),
            "victim_ttft_slow_grammars_s": round(stack.beside["slow_grammars"].p95_s, 3),
            "fair_throughput_ratio": round(median_ratio(ours.streams, own.streams), 3),
            "prefix_throughput_ratio": round(median_ratio(ours.shared_prefixes, own.shared_prefixes), 2),
            "slot_freed_s": round(stack.slot_freed_s, 2),
            "retry_after_error": round(stack.retry_after_error, 2),
            "tokens_per_s_64_fair": round(statistics.median(ours.streams), 1),
            "tokens_per_s_64_own": round(statistics.median(own.streams), 1),
        },
    )


if __name__ == "__main__":
    main()
