"""What a replica says of its own start."""

import logging

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tokenyard_deployments.serving.start_phases import StartPhases


def test_each_phase_goes_from_the_end_of_the_one_before(caplog: pytest.LogCaptureFixture) -> None:
    moments = iter([100.0, 103.0, 110.0, 112.5])
    phases = StartPhases(lambda: next(moments))
    phases.ended("imports")
    phases.ended("engine", {"weights": 2.0, "profile": 1.5})
    phases.ended("warm_up")
    assert phases.seconds == {"imports": 3.0, "engine": 3.5, "weights": 2.0, "profile": 1.5, "warm_up": 2.5}
    registry = CollectorRegistry()
    phases.show_in(registry)
    assert b'tokenyard_replica_start_seconds{phase="engine"} 3.5' in generate_latest(registry)
    with caplog.at_level(logging.INFO):
        phases.log()
    assert "ready after 12.5 s: imports 3.0 s, engine 3.5 s" in caplog.text
