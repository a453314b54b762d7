"""Networks that take more time than is theirs wait with what they ask for next, and nobody else."""

import pytest

from support.fakes.clock import FrozenClock
from tokenyard.web.network_pace import Allowance, NetworkPace
from tokenyard.web.token_buckets import LONGEST_WAIT_S

EACH, TOGETHER = Allowance(0.01, 0.05), Allowance(0.03, 0.15)
ONE_S = 0.0001


def test_a_network_that_pushes_waits_alone() -> None:
    pace = NetworkPace(EACH, TOGETHER, FrozenClock())
    for _ in range(round(EACH.burst_s / ONE_S)):
        assert pace.wait_s("pushing") == 0
        pace.took("pushing", ONE_S)
    pace.took("pushing", 0.02)
    assert pace.wait_s("pushing") == pytest.approx(0.02 / EACH.share)
    assert pace.wait_s("another") == 0


def test_many_that_push_together_have_one_share_and_newcomers_do_not_wait_for_them() -> None:
    clock = FrozenClock()
    pace = NetworkPace(EACH, TOGETHER, clock)
    networks = [f"pushing {number}" for number in range(round(4 * TOGETHER.burst_s / EACH.burst_s))]
    for network in networks:
        pace.took(network, 0.9 * EACH.burst_s)
    assert all(pace.wait_s(network) > 0 for network in networks)
    pace.took("another", 10 * ONE_S)
    assert pace.wait_s("another") == 0
    clock.advance(LONGEST_WAIT_S)
    assert [pace.wait_s(network) for network in networks] == [0] * len(networks)
    for _ in range(1000):
        pace.took(networks[0], 1.0)
    assert pace.wait_s("another") == 0


def test_many_that_come_back_when_they_may_again_have_one_share_all_the_same() -> None:
    clock = FrozenClock()
    pace = NetworkPace(EACH, TOGETHER, clock)
    networks = [f"pushing {number}" for number in range(64)]
    again_at = dict.fromkeys(networks, clock())
    last_s = 0.0  # taken in the last seconds, when what all had at once is spent
    for second in range(40):
        for _ in range(25):
            clock.advance(0.04)
            for network in networks:
                if clock() >= again_at[network]:
                    pace.took(network, ONE_S)
                    again_at[network] = clock() + pace.wait_s(network)
                    last_s += ONE_S if second >= 20 else 0
    assert last_s / 20 < 3 * TOGETHER.share
    assert pace.wait_s("another") == 0
