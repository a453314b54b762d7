"""Requests a second and latencies of the gateway, its ceiling and its peers, in rounds that alternate."""

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway import peers
from benchmarks.gateway.stand import PATH, Stand, Target, load

ROUNDS = 5
ROUND_S = 3.0
CONNECTIONS, MANY_CONNECTIONS = 16, 64
OURS, UNLIMITED, CEILING, LITELLM, PORTKEY, SERVER = "ours", "unlimited", "ceiling", "litellm", "portkey", "server"


@dataclass(frozen=True)
class Rates:
    """Of each target: requests a second at 16 connections, and latencies in milliseconds at one connection.

    `crowded_rps` is at 64 connections, where a core waits for nobody: of ours and the ceiling.
    """

    rps: Mapping[str, float]
    crowded_rps: Mapping[str, float]
    spread: Mapping[str, float]
    p50_ms: Mapping[str, float]
    p99_ms: Mapping[str, float]
    half_load_p99_ms: float
    memory_mb: float
    script_us: Mapping[str, float]
    versions: Mapping[str, str]


def measure(stand: Stand, folder: Path) -> Rates:
    """Measure every target that can be had; the others are left out, with a word on the terminal."""
    with ExitStack() as stack:
        url, process = stack.enter_context(stand.gateway())
        targets = {
            SERVER: Target(stand.server + PATH, stand.bearer("limited")),
            OURS: Target(url + PATH, stand.bearer("limited")),
            UNLIMITED: Target(url + PATH, stand.bearer("unlimited")),
            CEILING: Target(stack.enter_context(stand.ceiling()) + PATH, stand.bearer("limited")),
        }
        versions: dict[str, str] = {}
        for name, start in _peers(stand, folder).items():
            try:
                targets[name], versions[name] = stack.enter_context(start())
            except peers.NotInstallable as error:
                print(f"  without {name}: {error}", flush=True)  # noqa: T201
        rps = _rps(targets, CONNECTIONS)
        crowded = _rps({name: targets[name] for name in (OURS, CEILING)}, MANY_CONNECTIONS)
        alone = {name: [load(target, 1, ROUND_S) for _ in range(2)] for name, target in targets.items()}
        median = {name: statistics.median(found) for name, found in rps.items()}
        half = load(targets[OURS], CONNECTIONS, 2 * ROUND_S, rate=median[OURS] / 2)
        return Rates(
            rps=median,
            crowded_rps={name: statistics.median(found) for name, found in crowded.items()},
            spread={name: (max(found) - min(found)) / median[name] for name, found in rps.items()},
            p50_ms={name: statistics.median(one.p50_ms for one in found) for name, found in alone.items()},
            p99_ms={name: statistics.median(one.p99_ms for one in found) for name, found in alone.items()},
            half_load_p99_ms=half.p99_ms,
            memory_mb=process.memory_info().rss / 2**20,
            script_us={name: _script_us(stand, targets[name]) for name in (OURS, CEILING)},
            versions=versions,
        )


def _rps(targets: Mapping[str, Target], connections: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in targets}
    for target in targets.values():
        load(target, connections, 2)  # warm
    for number in range(ROUNDS):
        # Who begins changes, so that a machine that slows down slows all.
        for name in list(targets)[:: 1 if number % 2 else -1]:
            result = load(targets[name], connections, ROUND_S)
            assert result.clean, (name, result)
            found[name].append(result.rps)
        print("  " + ", ".join(f"{name} {rates[-1]:.0f}" for name, rates in found.items()), flush=True)  # noqa: T201
    return found


def _script_us(stand: Stand, target: Target) -> float:
    load(target, CONNECTIONS, 1)  # so that what is counted next is of this target alone
    stand.script_us()
    load(target, CONNECTIONS, ROUND_S)
    return stand.script_us()


def _peers(stand: Stand, folder: Path) -> dict[str, Callable[[], AbstractContextManager[tuple[Target, str]]]]:
    return {LITELLM: lambda: peers.litellm(stand.server, folder), PORTKEY: lambda: peers.portkey(stand.server)}
