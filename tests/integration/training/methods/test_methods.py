"""The methods that a spec can name."""

import subprocess
import sys

import pytest

from tokenyard.finetune.methods import METHODS as OFFERED
from tokenyard_deployments.training.failures import TrainingFailed
from tokenyard_deployments.training.methods import METHODS, training_method


def test_every_method_that_the_api_offers_can_be_trained() -> None:
    assert {method.name for method in OFFERED} == set(METHODS)


def test_every_method_that_the_api_offers_can_be_checked() -> None:
    pytest.importorskip("transformers")
    from tokenyard_deployments.training.data.check import LESSONS  # noqa: PLC0415

    assert {method.name for method in OFFERED} == set(LESSONS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_file(name: str) -> None:
    pytest.importorskip("trl")
    assert training_method(name).__module__ == f"tokenyard_deployments.training.methods.{name}"


@pytest.mark.parametrize("name", ["magic", "..machine", ""])
def test_any_other_name_fails_the_attempt(name: str) -> None:
    with pytest.raises(TrainingFailed) as failed:
        training_method(name)
    assert (failed.value.error.code, failed.value.error.retryable) == ("method_not_available", False)


def test_a_training_process_leaves_out_what_it_has_no_use_for() -> None:
    """transformers loads it wherever it is installed, and here it is, for result files."""
    code = (
        "import sys; from tokenyard_deployments.training.methods import training_method; training_method('supervised');"
        " print([name for name in sys.modules if name.startswith('wandb') and sys.modules[name] is not None])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
