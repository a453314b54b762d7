"""How jobs look to Ray's commands."""

from typing import get_args

from tokenyard.finetune.ray_jobs.views import STATUS, RayStatus
from tokenyard.finetune.states import JobStatus


def test_every_status_has_a_word_of_rays() -> None:
    assert set(STATUS) == set(get_args(JobStatus))
    assert set(STATUS.values()) == set(get_args(RayStatus))
