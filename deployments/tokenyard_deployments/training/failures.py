"""How a training attempt fails: in words for the tenant, without anything of the machine's inside."""

from tokenyard.core.training import INTERRUPTED, TrainingError


class TrainingFailed(Exception):
    """The attempt cannot succeed, for a reason that can be told."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.error = TrainingError(code, message, retryable)


class AttemptStopped(BaseException):
    """The attempt was asked to end by a signal. Not to be caught as an error."""


def interrupted() -> TrainingError:
    """Return the error for what is not the tenant's doing; the trace is in the job's log only."""
    return TrainingError(INTERRUPTED, "Training broke off because of a fault of the platform.", True)


def out_of_memory() -> TrainingError:
    message = "Training needs more memory than the machine has. Use a smaller batch_size or shorter examples."
    return TrainingError("out_of_memory", message)


def killed_for_memory() -> TrainingFailed:
    """Return the error for a worker that was ended because its machine, which others use too, had no memory left."""
    error = out_of_memory()
    return TrainingFailed(error.code, error.message, retryable=True)


def diverged() -> TrainingFailed:
    message = "Training diverged: the loss is not a finite number any more. Use a lower learning_rate_multiplier."
    return TrainingFailed("training_diverged", message)
