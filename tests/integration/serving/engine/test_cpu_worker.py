"""A seeded request draws what it gets and no more: what it is drawn while its prompt is read must not count."""

from types import SimpleNamespace

import numpy
import pytest
import torch

from tokenyard_deployments.serving.engine.cpu_worker import SeededCpuWorker, without_discarded_draws
from tokenyard_deployments.serving.engine.launch import WORKER

READING, ANSWERING = 0, 2


@pytest.fixture
def runner() -> SimpleNamespace:
    generators = {place: torch.Generator().manual_seed(place) for place in (READING, ANSWERING)}
    mask = SimpleNamespace(np=numpy.array([True, True, False, False]))
    return SimpleNamespace(input_batch=SimpleNamespace(generators=generators), discard_request_mask=mask)


def test_who_is_still_read_is_kept_out(runner: SimpleNamespace) -> None:
    generators = runner.input_batch.generators
    before = dict(generators)
    with without_discarded_draws(runner):
        assert generators == {ANSWERING: before[ANSWERING]}
    assert generators == before


def test_also_after_an_error(runner: SimpleNamespace) -> None:
    with pytest.raises(ZeroDivisionError), without_discarded_draws(runner):
        raise ZeroDivisionError
    assert set(runner.input_batch.generators) == {READING, ANSWERING}


def test_the_worker_is_found_by_its_name() -> None:
    module, _, name = WORKER.rpartition(".")
    assert (SeededCpuWorker.__module__, SeededCpuWorker.__name__) == (module, name)
