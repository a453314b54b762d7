"""Networks whose connections take more time than is theirs wait with the next ones, and nobody else."""

import pytest

from support.fakes.clock import FrozenClock
from tokenyard.web.edge.connection_pace import (
    BURST_OF_ALL_S,
    BURST_S,
    CONNECTION_S,
    SHARE,
    SHARE_OF_ALL,
    ConnectionPace,
)
from tokenyard.web.token_buckets import LONGEST_WAIT_S


def test_a_network_that_pushes_waits_alone() -> None:
    pace = ConnectionPace(FrozenClock())
    for _ in range(round(BURST_S / CONNECTION_S)):
        assert pace.wait_s("pushing") == 0
        pace.took("pushing", CONNECTION_S)
    pace.took("pushing", 0.02)
    assert pace.wait_s("pushing") == pytest.approx(0.02 / SHARE)
    assert pace.wait_s("another") == 0


def test_many_that_push_together_have_one_share_and_newcomers_do_not_wait_for_them() -> None:
    clock = FrozenClock()
    pace = ConnectionPace(clock)
    networks = [f"pushing {number}" for number in range(round(4 * BURST_OF_ALL_S / BURST_S))]
    for network in networks:
        pace.took(network, 0.9 * BURST_S)
    assert all(pace.wait_s(network) > 0 for network in networks)
    pace.took("another", 10 * CONNECTION_S)
    assert pace.wait_s("another") == 0
    clock.advance(LONGEST_WAIT_S)
    assert [pace.wait_s(network) for network in networks] == [0] * len(networks)
    for _ in range(1000):
        pace.took(networks[0], 1.0)
    assert pace.wait_s("another") == 0
    assert SHARE < SHARE_OF_ALL < 0.1, "the rest of the time is for those who are served"
