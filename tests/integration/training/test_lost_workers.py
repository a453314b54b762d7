"""What is said of a Train worker that is gone, by what Ray says of its end."""

import pytest

pytest.importorskip("ray")
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from tokenyard_deployments.training.failures import killed_for_memory
from tokenyard_deployments.training.ray_train import ran_out_of_memory

OF_THE_WATCH = "1 worker(s) were killed due to the node running low on memory. "
OF_A_CRASH = "(1) the process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called"


@pytest.mark.parametrize(
    ("death", "memory"),
    [
        (OutOfMemoryError("evicted"), True),
        (RayActorError(error_msg=OF_THE_WATCH), True),
        (ActorDiedError(), False),
        (RayActorError(error_msg=OF_A_CRASH), False),
    ],
    ids=["type", "words", "death", "crash"],
)
def test_only_rays_watch_over_memory_is_sure(death: Exception, memory: bool) -> None:
    assert ran_out_of_memory(WorkerHealthCheckFailedError("a worker is gone", death)) is memory
    assert ran_out_of_memory(death) is memory


def test_it_is_tried_again_as_others_use_the_memory_too() -> None:
    error = killed_for_memory().error
    assert (error.code, error.retryable) == ("out_of_memory", True)
    assert "batch_size" in error.message
