"""`make bench-gateway`: prints a table and writes build/bench/gateway.json. `BENCH_REQUESTS` sets the long run."""

import os
import tempfile
from pathlib import Path

from benchmarks.figures import write_figures
from benchmarks.gateway import attacks, rates, several
from benchmarks.gateway.stand import PATH, Stand, Target, load, stand, streams

STREAMS, STREAM_TOKENS = 500, 500
LONG_RUN_REQUESTS = int(os.environ.get("BENCH_REQUESTS", "1000000"))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tokenyard-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with stand(folder) as it:
            print("one core each: ours, the ceiling, the peers (five rounds) ...", flush=True)  # noqa: T201
            found = rates.measure(it, folder)
            print("a tenant beside attacks ...", flush=True)  # noqa: T201
            figures = _rates(found) | attacks.measure(it)
            print("streams, several processes, a long run ...", flush=True)  # noqa: T201
            figures |= _streams(it) | _several(it) | _long_run(it, found.rps[rates.OURS])
    write_figures("gateway", figures)


def _rates(found: rates.Rates) -> dict[str, float | str]:
    ours = found.rps[rates.OURS]
    server = found.rps[rates.SERVER]
    figures: dict[str, float | str] = {
        "rps_per_core": round(ours),
        "rps_unlimited": round(found.rps[rates.UNLIMITED]),
        "rps_ceiling": round(found.rps[rates.CEILING]),
        "rps_server": round(server),
        "ceiling_ratio": round(ours / found.rps[rates.CEILING], 2),
        "ceiling_ratio_64": round(found.crowded_rps[rates.OURS] / found.crowded_rps[rates.CEILING], 2),
        "added_p50_ms": round(found.p50_ms[rates.OURS] - found.p50_ms[rates.SERVER], 2),
        "added_p99_ms": round(found.p99_ms[rates.OURS] - found.p99_ms[rates.SERVER], 2),
        "added_p50_ms_ceiling": round(found.p50_ms[rates.CEILING] - found.p50_ms[rates.SERVER], 2),
        "added_p99_ms_ceiling": round(found.p99_ms[rates.CEILING] - found.p99_ms[rates.SERVER], 2),
        "half_load_p99_ms": round(found.half_load_p99_ms, 2),
        "rss_mb": round(found.memory_mb),
        "script_us": round(found.script_us[rates.OURS], 1),
        "script_us_ratio": round(found.script_us[rates.OURS] / found.script_us[rates.CEILING], 2),
        "spread": round(found.spread[rates.OURS], 2),
    }
    for peer, version in found.versions.items():
        figures |= {
            f"rps_{peer}": round(found.rps[peer]),
            f"vs_{peer}": round(ours / found.rps[peer], 1),
            f"added_p50_ms_{peer}": round(found.p50_ms[peer] - found.p50_ms[rates.SERVER], 2),
            f"version_{peer}": version,
        }
    return figures


def _streams(it: Stand) -> dict[str, float | str]:
    with it.gateway() as (url, _process):
        headers = it.bearer("limited")
        through = streams(Target(url + PATH, headers), STREAMS, STREAM_TOKENS)
        direct = streams(Target(it.server + PATH, headers), STREAMS, STREAM_TOKENS)
    return {
        "sse_streams": through["whole"],
        "sse_lost_frames": through["lost"],
        "sse_added_p99_ms": round(through["gap_p99_ms"] - direct["gap_p99_ms"], 2),
    }


def _several(it: Stand) -> dict[str, float | str]:
    return {
        "rps_2_processes": round(several.requests_per_s(it, 2)),
        "rps_4_processes": round(several.requests_per_s(it, 4)),
        "limit_error": round(several.limit_error(it, 4), 4),
    }


def _long_run(it: Stand, rps: float) -> dict[str, float | str]:
    with it.gateway() as (url, process):
        target = Target(url + PATH, it.bearer("limited"))
        load(target, 16, 5)
        before = process.memory_info().rss
        done = load(target, 16, LONG_RUN_REQUESTS / rps)
        assert done.clean, done
        grown = process.memory_info().rss - before
    return {"rss_growth_mb": round(grown / 2**20, 1), "long_run_requests": sum(done.statuses.values())}


if __name__ == "__main__":
    main()
