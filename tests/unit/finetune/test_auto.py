"""What "auto" comes to."""

import pytest

from tokenyard.finetune.methods.hyperparameters import RequestedHyperparameters


@pytest.mark.parametrize(
    ("rows", "epochs", "batch"), [(1, 10, 1), (20, 10, 2), (210, 2, 8), (800, 1, 32), (100_000, 1, 32)]
)
def test_small_files_are_learnt_in_many_small_steps(rows: int, epochs: int, batch: int) -> None:
    found = RequestedHyperparameters().resolved(rows, auto_multiplier=4.0)
    assert (found.n_epochs, found.batch_size, found.learning_rate_multiplier) == (epochs, batch, 4.0)


def test_what_is_asked_for_stays() -> None:
    asked = RequestedHyperparameters(n_epochs=3, batch_size=7, learning_rate_multiplier=0.5)
    found = asked.resolved(1000, auto_multiplier=4.0)
    assert (found.n_epochs, found.batch_size, found.learning_rate_multiplier) == (3, 7, 0.5)
