"""Many gateways and replicas in simulated time: they do not herd, and prefixes and adapters find their replicas."""

import random

import pytest

from support.routing.modelled_serving import Machine, Measured, Traffic, World, policies

SMALL = {"prefix_tokens": 0, "own_tokens": 50, "prefixes": 1}


def _measured(traffic: Traffic, replicas: int, machine: Machine | None = None) -> dict[str, Measured]:
    """Return what comes of the same requests under each policy."""
    requests = traffic.requests(random.Random(7))
    found = {}
    for name, policy in policies(random.Random(1)).items():
        world = World(machine or Machine(), replicas, traffic.gateways, policy, random.Random(2))
        found[name] = world.run(requests)
    return found


@pytest.mark.parametrize(("replicas", "per_s"), [(8, 100), (4, 80), (2, 40)])
def test_many_gateways_do_not_all_go_to_the_same_replica(replicas: int, per_s: float) -> None:
    found = _measured(Traffic(per_s=per_s, seconds=20, gateways=8, **SMALL), replicas)
    routed, listed, chance = found["routed"], found["least_loaded"], found["random"]
    assert len(routed.waits_s) == len(listed.waits_s) > 500
    assert routed.max_over_mean < min(listed.max_over_mean, chance.max_over_mean)
    assert routed.max_over_mean - 1 < 0.6 * (listed.max_over_mean - 1)
    assert routed.wait_s(0.95) < listed.wait_s(0.95) / 4


@pytest.mark.parametrize(("gateways", "replicas"), [(1, 2), (4, 4), (8, 8)])
def test_shared_prefixes_are_found(gateways: int, replicas: int) -> None:
    traffic = Traffic(per_s=4 * replicas, seconds=60, gateways=gateways, organizations=4 * replicas)
    found = _measured(traffic, replicas)
    routed, listed, chance = found["routed"], found["least_loaded"], found["random"]
    others = max(listed.hit_rate, chance.hit_rate)
    assert 1 - routed.hit_rate < 0.75 * (1 - others), "a quarter of what was computed again is not"
    assert routed.wait_s(0.5) < min(listed.wait_s(0.5), chance.wait_s(0.5))
    assert routed.wait_s(0.95) < min(listed.wait_s(0.95), chance.wait_s(0.95))


def test_one_prefix_that_all_ask_for_is_served_by_all_replicas() -> None:
    found = _measured(Traffic(per_s=85, seconds=20, gateways=8, organizations=1, prefixes=1), 4)
    routed, listed = found["routed"], found["least_loaded"]
    assert routed.hit_rate > 0.99 * listed.hit_rate
    assert routed.max_over_mean < listed.max_over_mean
    assert routed.wait_s(0.95) < listed.wait_s(0.95)


def test_adapters_stay_where_they_are() -> None:
    traffic = Traffic(per_s=16, seconds=60, gateways=4, organizations=60, prefixes=1, prefix_tokens=300, adapters=30)
    found = _measured(traffic, 4)
    assert found["routed"].adapters_loaded < 2 * 30
    assert found["routed"].adapters_loaded < found["least_loaded"].adapters_loaded < found["random"].adapters_loaded
