"""How well gateways choose replicas: on two real engines, in a model of many, and what a choice costs.

Prints a table and writes the figures into build/bench/serving.json.
"""

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import routing_engines
from benchmarks.figures import add_figures
from support.fakes.gateway_ports import KnownReplicas
from support.routing.modelled_serving import Machine, Measured, Traffic, World, policies
from support.routing.routed_requests import replica, routed
from tokenyard.core.replica import Replica, ReplicaLoad
from tokenyard.gateway.path.route import ReplicaRouter

MANY = 8
"""Gateways and replicas in the model."""
PICKS, REPEATS = 1000, 20


def measure() -> dict[str, float | str]:
    """Return the figures; those of the model say so by name."""
    with tempfile.TemporaryDirectory(prefix="tokenyard-bench-", ignore_cleanup_errors=True) as name:
        served = routing_engines.measure(Path(name))
    figures: dict[str, float | str] = {}
    for policy, one in served.items():
        figures[f"routing_hit_rate_{policy}"] = round(one.hit_rate, 3)
        figures[f"routing_ttft_ms_p50_{policy}"] = round(one.wait_ms(0.5), 1)
        figures[f"routing_ttft_ms_p95_{policy}"] = round(one.wait_ms(0.95), 1)
    return figures | _model() | _costs()


def _model() -> dict[str, float]:
    """Many gateways and replicas in simulated time."""
    alike = Traffic(per_s=100, seconds=60, gateways=MANY, prefix_tokens=0, own_tokens=50, prefixes=1)
    shared = Traffic(per_s=4 * MANY, seconds=60, gateways=MANY, organizations=4 * MANY)
    tuned = Traffic(per_s=2 * MANY, seconds=60, gateways=MANY, organizations=60, prefixes=1, adapters=60)
    figures: dict[str, float] = {}
    for policy in policies(random.Random(0)):
        figures[f"routing_model_max_over_mean_{policy}"] = round(_modelled(policy, alike).max_over_mean, 2)
        found = _modelled(policy, shared)
        figures[f"routing_model_hit_rate_{policy}"] = round(found.hit_rate, 3)
        figures[f"routing_model_ttft_ms_p95_{policy}"] = round(1000 * found.wait_s(0.95))
        figures[f"routing_model_adapters_loaded_{policy}"] = _modelled(policy, tuned).adapters_loaded
    return figures


def _modelled(policy: str, traffic: Traffic) -> Measured:
    chance = random.Random(1)
    world = World(Machine(), MANY, traffic.gateways, policies(chance)[policy], chance)
    return world.run(traffic.requests(random.Random(2)))


def _costs() -> dict[str, float]:
    return {
        "routing_pick_us_1_replica": _pick_us(1, 2000),
        "routing_pick_us_2_replicas": _pick_us(2, 2000),
        "routing_pick_us_8_replicas": _pick_us(8, 2000),
        "routing_pick_us_8_replicas_adapter": _pick_us(8, 2000, adapter="ft:model"),
        "routing_pick_us_2_replicas_32_kb": _pick_us(2, 32_000),
    }


def _pick_us(replicas: int, prompt_bytes: int, adapter: str | None = None) -> float:
    """Return what all that is done for one request costs, with prompts of which twenty begin alike."""
    chance = random.Random(1)
    beginnings = ["".join(chance.choices("abcdefgh ", k=prompt_bytes)) for _ in range(20)]
    requests = [
        routed(f"{chance.choice(beginnings)} {at}", organization=f"org_{at % 50}", adapter=adapter)
        for at in range(PICKS)
    ]
    listed = tuple(replica(f"replica-{at}") for at in range(replicas))
    router = ReplicaRouter(_Listed(listed))
    load = ReplicaLoad(3, 32, 10)

    def once() -> None:
        for request in requests:
            way = router.pick(request, ())
            assert way is not None
            with way:
                way.began(load)
                way.made(20)

    return round(min(_seconds(once) for _ in range(REPEATS)) / PICKS * 1e6, 1)


class _Listed(KnownReplicas):
    """Costs no more than the gateway's own list does."""

    def candidates(self, _model: str) -> list[Replica]:
        return self.listed


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    print("two real engines (three ways of choosing, two rounds each), a model of many, the cost ...", flush=True)  # noqa: T201
    add_figures("serving", measure())


if __name__ == "__main__":
    main()
