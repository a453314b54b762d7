"""Who takes more of our time than is meant for it has to wait, and nobody else."""

import pytest

from support.fakes.clock import FrozenClock
from tokenyard.web.token_buckets import LONGEST_WAIT_S, Patience


def test_what_is_beyond_a_share_is_made_up_for_by_waiting() -> None:
    clock = FrozenClock()
    patience = Patience(0.01, 0.05, now=clock)
    for _ in range(5):
        patience.took("a", 0.01)
    assert patience.wait_s("a") == pytest.approx(0)
    patience.took("a", 0.02)
    assert patience.wait_s("a") == pytest.approx(2)
    assert patience.wait_s("b") == 0
    clock.advance(1)
    assert patience.wait_s("a") == pytest.approx(1)
    clock.advance(1000)
    patience.took("a", 0.06)
    assert patience.wait_s("a") == pytest.approx(1), "no more than the burst is saved up"


def test_nobody_waits_for_ever() -> None:
    clock = FrozenClock()
    patience = Patience(0.01, 0.05, now=clock)
    for _ in range(100):
        patience.took("a", 1.0)
    assert patience.wait_s("a") == pytest.approx(LONGEST_WAIT_S)
    assert patience.is_at_its_end("a")
    clock.advance(LONGEST_WAIT_S / 2)
    assert not patience.is_at_its_end("a")
