"""How jobs look to Ray's commands."""

from typing import get_args

import pytest

from tokenyard.finetune.ray_jobs.submission import Submission
from tokenyard.finetune.ray_jobs.views import STATUS, RayStatus
from tokenyard.finetune.states import JobStatus


def test_every_status_has_a_word_of_rays() -> None:
    assert set(STATUS) == set(get_args(JobStatus))
    assert set(STATUS.values()) == set(get_args(RayStatus))


@pytest.mark.parametrize(("flags", "wanted"), [("", None), (" --publish-if-worse", True)])
def test_a_worse_model_is_published_where_the_command_says_so(flags: str, wanted: bool | None) -> None:
    command = f"tokenyard-train --model small --training-file file-1 --validation-file file-2{flags}"
    assert Submission(entrypoint=command).request().publish_if_worse is wanted
