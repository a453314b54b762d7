"""How jobs look to Ray's commands."""

from typing import get_args

import pytest

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.graders.shapes import StringCheckGrader
from tokenyard.finetune.job import AskedEvaluation, Integration, WandbSettings
from tokenyard.finetune.job_request import JobRequest
from tokenyard.finetune.methods.reinforcement import ReinforcementHyperparameters
from tokenyard.finetune.ray_jobs.submission import Submission
from tokenyard.finetune.ray_jobs.views import STATUS, RayStatus
from tokenyard.finetune.states import JobStatus


def test_every_status_has_a_word_of_rays() -> None:
    assert set(STATUS) == set(get_args(JobStatus))
    assert set(STATUS.values()) == set(get_args(RayStatus))


def _request(flags: str) -> JobRequest:
    return Submission(entrypoint=f"tokenyard-train --model small --training-file file-1 {flags}").request()


def test_every_field_of_a_job_has_a_flag() -> None:
    grader = (
        '{"type": "string_check", "name": "same", "operation": "eq", "input": "{{sample.output_text}}",'
        ' "reference": "{{item.answer}}"}'
    )
    wandb = '{"project": "bots"}'
    request = _request(
        "--validation-file file-2 --suffix sky --seed 5 --method reinforcement --n-epochs 2 --batch-size 4"
        " --learning-rate-multiplier 1.5 --hyperparameter beta=0.2 --metadata team=blue --evaluation-rows 3"
        " --evaluation-general --integration tensorboard --callable-checkpoints 1 --publish-if-worse"
        f" --grader '{grader}' --wandb '{wandb}'"
    )
    request.check()
    assert {name for name in JobRequest.model_fields if getattr(request, name) is None} == {"hyperparameters"}
    assert (request.suffix, request.seed, request.metadata) == ("sky", 5, {"team": "blue"})
    wanted = request.hyperparameters_asked
    assert isinstance(wanted, ReinforcementHyperparameters)
    assert (wanted.n_epochs, wanted.batch_size, wanted.learning_rate_multiplier, wanted.beta) == (2, 4, 1.5, 0.2)
    assert isinstance(request.grader, StringCheckGrader)
    assert request.asked_evaluation == AskedEvaluation(rows=3, general=True)
    assert request.asked_integrations == (Integration.TENSORBOARD, Integration.WANDB)
    assert request.callable_checkpoints == 1
    assert request.asked_wandb == WandbSettings(project="bots")


def test_what_no_flag_says_is_left_to_the_platform() -> None:
    assert _request("") == JobRequest(
        model="small", training_file="file-1", method={"type": "supervised", "supervised": {}}
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--hyperparameter rank", "'rank' is not NAME=VALUE"),
        ("--hyperparameter rank=many", "method.supervised.hyperparameters.rank"),
        ("--grader {", "it is not JSON"),
        ("--method dpo --grader {}", "method.dpo.grader"),
        ("--integration neptune", "integrations.0.type"),
        ("--evaluation-rows 21", "evaluation.rows"),
        ("--callable-checkpoints 9", "callable_checkpoints"),
        ("--sweep n_epochs=1,x", "it is not JSON"),
        ("--sweep n_epochs=1,2", "--sweep: a submission is one job"),
        ("--det", "--det"),
    ],
)
def test_a_wrong_flag_is_named(flags: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _request(flags)
    assert said in refused.value.message
