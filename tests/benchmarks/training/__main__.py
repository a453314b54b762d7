"""`make bench-training`: prints a table and adds its figures to build/bench/training.json.

`BENCH_PARTS` names some of the parts (`packing`, `overhead`, `resume`, `jobs`, `s3`, `recipes`), `BENCH_ROUNDS` their
rounds.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from benchmarks.figures import add_figures
from benchmarks.training import jobs, loops, overhead, recipes
from support.ray_cluster.small_model import pulled

PARTS = ("packing", "overhead", "resume", "jobs", "s3", "recipes")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def main() -> None:
    wanted = os.environ.get("BENCH_PARTS", ",".join(PARTS)).split(",")
    assert set(wanted) <= set(PARTS), f"the parts are {PARTS}"
    for part in wanted:
        print(f"{part} ...", flush=True)  # noqa: T201
        with tempfile.TemporaryDirectory(prefix="tokenyard-bench-", ignore_cleanup_errors=True) as name:
            add_figures("training", {**_measured(part, Path(name)), f"load_{part}": round(os.getloadavg()[1], 2)})


def _measured(part: str, folder: Path) -> dict[str, float]:
    match part:
        case "packing":
            return loops.packing(folder, pulled(), rounds=ROUNDS)
        case "resume":
            return loops.resuming(folder, pulled())
        case "overhead":
            return asyncio.run(overhead.measure(folder, pulled(), rounds=ROUNDS))
        case "jobs":
            return jobs.measure(folder)
        case "s3":
            return jobs.measure_s3(folder)
    return recipes.measure(folder)


if __name__ == "__main__":
    main()
