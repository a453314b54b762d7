"""What a tenant that behaves well feels of each attack: its p99 beside the attack over its p99 alone, and our memory.

The attacker shares a core with the tenant, the model server and Valkey, and gets what they leave of it.
"""

import time
from dataclasses import dataclass

import psutil

from benchmarks.gateway.stand import OTHER_CORE, PATH, Stand, Target, load
from support.attacks.attacking import attacking
from support.attacks.table import ATTACKS

RATE, CONNECTIONS = 200.0, 8  # of the tenant, requests a second in all
ROUNDS, ROUND_S = 2, 3.0
SETTLES_S = 1.0  # what an attack may have at once is soon spent


@dataclass(frozen=True)
class Felt:
    p99_ratio: float
    growth_mb: float


def measure(stand: Stand) -> dict[str, float | str]:
    with stand.gateway() as (url, process):
        target = Target(url + PATH, stand.bearer("limited"))
        load(target, CONNECTIONS, ROUND_S)  # warm
        felt = {name: _felt(name, url, process, target, stand.keys["hostile"]) for name in ATTACKS}
    slowest = max(felt, key=lambda name: felt[name].p99_ratio)
    largest = max(felt, key=lambda name: felt[name].growth_mb)
    return {
        "attack_p99_ratio_max": round(felt[slowest].p99_ratio, 2),
        "attack_p99_ratio_of": slowest,
        "attack_rss_growth_mb_max": round(felt[largest].growth_mb, 1),
        "attack_rss_growth_of": largest,
    }


def _felt(name: str, url: str, process: psutil.Process, target: Target, key: str) -> Felt:
    """Measure alone and beside the attack in turn."""
    ratios, before = [], process.memory_info().rss
    for _ in range(ROUNDS):
        alone = load(target, CONNECTIONS, ROUND_S, rate=RATE)
        with attacking(url, name, key, core=OTHER_CORE) as report:
            time.sleep(SETTLES_S)
            beside = load(target, CONNECTIONS, ROUND_S, rate=RATE)
            after = process.memory_info().rss
        assert beside.clean, (name, beside)
        assert not report.problems, (name, report)
        ratios.append(beside.p99_ms / alone.p99_ms)
    felt = Felt(min(ratios), (after - before) / 2**20)
    answers = ", ".join(f"{status}: {number}" for status, number in report.answers.items())
    print(  # noqa: T201
        f"  {name:36} p99 {beside.p99_ms:6.2f} ms, {felt.p99_ratio:5.2f} x alone, {felt.growth_mb:+6.1f} MB"
        f"  ({report.connections} connections, {report.sent_bytes / 2**20:.0f} MB sent, {answers})",
        flush=True,
    )
    return felt
