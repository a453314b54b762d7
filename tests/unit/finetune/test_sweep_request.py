"""The grid of a sweep, and the jobs that it stands for."""

from typing import Any

import pytest
from pydantic import ValidationError

from tokenyard.core.errors import InvalidRequest
from tokenyard.finetune.sweeps.sweep_request import SweepRequest


def request(sweep: object, **asked: Any) -> SweepRequest:
    body = {"model": "m", "training_file": "file-t", "validation_file": "file-v", "sweep": sweep, **asked}
    found = SweepRequest.model_validate(body)
    found.check()
    return found


def test_each_combination_is_a_job_of_its_own() -> None:
    found = request({"n_epochs": [1, 2], "learning_rate_multiplier": [1, 4]}, suffix="sky", metadata={"team": "blue"})
    trials = found.trials()
    tried = [
        (each.hyperparameters_asked.learning_rate_multiplier, each.hyperparameters_asked.n_epochs) for each in trials
    ]
    assert tried == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert {each.hyperparameters_asked.batch_size for each in trials} == {"auto"}
    assert {(each.suffix, each.training_file, each.validation_file) for each in trials} == {("sky", "file-t", "file-v")}
    assert trials[0].metadata == {"team": "blue"}
    assert len({each.seed for each in trials}) == 1, "nothing but the grid differs"
    for each in trials:
        each.check()
    assert {each.seed for each in request({"n_epochs": [1, 2]}, seed=7).trials()} == {7}


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("hyperparameters", {}),
        ("hyperparameters", {"hyperparameters": {"rank": 4}}),
        ("method.supervised.hyperparameters", {"method": {"type": "supervised"}}),
        ("method.dpo.hyperparameters", {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3}}}}),
    ],
    ids=["nowhere", "older-place", "no-settings", "dpo"],
)
def test_the_values_stand_where_the_others_do(place: str, asked: dict[str, Any]) -> None:
    found = request({"batch_size": [2, 4]}, **asked)
    trials = found.trials()
    assert {each.hyperparameters_place for each in trials} == {place}
    assert [each.hyperparameters_asked.batch_size for each in trials] == [2, 4]
    said = found.hyperparameters_asked.model_dump(exclude_unset=True)
    for each in trials:
        asked_of_each = each.hyperparameters_asked.model_dump(exclude_unset=True)
        assert asked_of_each == said | {"batch_size": each.hyperparameters_asked.batch_size}


@pytest.mark.parametrize(
    ("sweep", "asked", "param"),
    [
        ({}, {}, "sweep"),
        ({"n_epochs": [1]}, {}, "sweep"),
        ({"n_epochs": [1, 2, 3], "batch_size": [1, 2, 4]}, {}, "sweep"),
        ({"n_epochs": [1, 2, 1]}, {}, "sweep.n_epochs"),
        ({"learning_rate_multiplier": [1, 1.0]}, {}, "sweep.learning_rate_multiplier"),
        ({"n_epochs": [1, 2]}, {"validation_file": None}, "validation_file"),
        ({"n_epochs": [1, 2]}, {"callable_checkpoints": 1}, "callable_checkpoints"),
        ({"n_epochs": [1, 2]}, {"hyperparameters": {"n_epochs": 3}}, "hyperparameters.n_epochs"),
        (
            {"n_epochs": [1, 2]},
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3}}}},
            "method.dpo.hyperparameters.n_epochs",
        ),
        ({"n_epochs": [1, 2]}, {"suffix": "-"}, "suffix"),
    ],
)
def test_what_is_wrong_is_named(sweep: object, asked: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        request(sweep, **asked)
    assert refused.value.param == param


def test_an_adapter_has_nothing_to_try() -> None:
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    method = {"type": "adapter", "adapter": {"config": config}}
    with pytest.raises(InvalidRequest) as refused:
        request({"n_epochs": [1, 2]}, method=method, validation_file=None)
    assert refused.value.param == "method.type"


@pytest.mark.parametrize(
    "sweep",
    [
        {"n_epochs": ["auto", 2]},
        {"n_epochs": [0, 2]},
        {"n_epochs": [1.5, 2]},
        {"n_epochs": [True, 2]},
        {"n_epochs": []},
        {"n_epochs": list(range(1, 10))},
        {"batch_size": [1, 257]},
        {"learning_rate_multiplier": [1, float("nan")]},
        {"learning_rate_multiplier": [1, 101]},
        {"rank": [4, 8]},
        None,
    ],
)
def test_values_that_no_job_could_have_are_refused(sweep: object) -> None:
    with pytest.raises(ValidationError):
        request(sweep)
