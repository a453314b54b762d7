"""The Ray job of one training attempt: `python -m tokenyard_deployments.training.job <url of spec.json>`."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import FrameType

from tokenyard.core.adapters import AdapterNotAllowed
from tokenyard.core.training import (
    ADAPTER_FOLDER,
    TrainingCheckpoint,
    TrainingError,
    TrainingResult,
    TrainingSpec,
    TrainingStatus,
    best_checkpoint,
)
from tokenyard_deployments.training.attempt import AttemptFolder, read_spec
from tokenyard_deployments.training.export import export_adapter
from tokenyard_deployments.training.failures import AttemptStopped, TrainingFailed, interrupted
from tokenyard_deployments.training.gate import check_losses
from tokenyard_deployments.training.ray_train import disconnect, fit

_LOG = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run the attempt; exit 0 only where it succeeded. The result file says the same in more words."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    spec = read_spec(arguments[0])
    _stop_on_signals(spec.resources.timeout_s)
    return 0 if Attempt(spec).run() is TrainingStatus.SUCCEEDED else 1


class Attempt:
    def __init__(self, spec: TrainingSpec) -> None:
        self._spec = spec
        self._started_at = int(time.time())
        self._folder = AttemptFolder(spec.output_url)

    def run(self) -> TrainingStatus:
        """Train, check, export; whatever happens, write the result."""
        status, error, digest = TrainingStatus.FAILED, None, None
        try:
            self._train()
            digest = self._export()
            status = TrainingStatus.SUCCEEDED
        except AttemptStopped as stop:
            status, error = (
                (TrainingStatus.FAILED, self._timeout_error()) if stop.timed_out else (TrainingStatus.CANCELLED, None)
            )
        except TrainingFailed as failure:
            error = failure.error
        except Exception:
            _LOG.exception("attempt %d of %s broke off", self._spec.attempt, self._spec.job)
            error = self._folder.failure() or interrupted()
        finally:
            _ignore_signals()
            self._write_result(status, error, digest)
        return status

    def _train(self) -> None:
        if self._spec.resume_url:
            self._folder.copy_checkpoints(AttemptFolder(self._spec.resume_url))
        resources = self._spec.resources
        wanted = f"{resources.gpus:g} GPU" if resources.gpus else f"{resources.cpus:g} CPU"
        self._folder.add_event(f"Waiting for a training worker with {wanted}")
        try:
            _in_thread(lambda: fit(self._spec))
        finally:
            disconnect()
            self._folder = AttemptFolder(self._spec.output_url)  # the worker has added events

    def _export(self) -> str:
        checkpoints = self._folder.checkpoints()
        if not checkpoints:
            raise TrainingFailed("training_interrupted", "Training ended without a checkpoint.", retryable=True)
        chosen = self._chosen(checkpoints)
        try:
            metrics = self._metrics()
            check_losses(metrics.get("valid_loss"), metrics.get("base_valid_loss"))
            digest = export_adapter(self._spec, self._folder, chosen)
        except AdapterNotAllowed as refusal:
            raise TrainingFailed(refusal.code, refusal.message) from refusal
        self._folder.add_event("The adapter passed its checks")
        return digest

    def _chosen(self, checkpoints: Sequence[TrainingCheckpoint]) -> TrainingCheckpoint:
        """Return the checkpoint that becomes the model."""
        early = self._spec.hyperparameters.early_stopping_patience is not None
        return best_checkpoint(checkpoints) if early else checkpoints[-1]

    def _metrics(self) -> dict[str, float]:
        counts, checkpoints = self._folder.counts(), self._folder.checkpoints()
        metrics = dict(self._chosen(checkpoints).metrics) if checkpoints else {}
        metrics.pop("step", None)
        if counts is not None and counts.base_valid_loss is not None:
            metrics["base_valid_loss"] = counts.base_valid_loss
        return metrics

    def _trained_tokens(self) -> int:
        """Whole epochs only, as only these left something behind."""
        counts, checkpoints = self._folder.counts(), self._folder.checkpoints()
        return counts.tokens_per_epoch * checkpoints[-1].epoch if counts and checkpoints else 0

    def _timeout_error(self) -> TrainingError:
        limit = f"{self._spec.resources.timeout_s / 60:g} minutes"
        if self._folder.counts() is None:
            return TrainingError("training_timeout", f"No machine was free for training within {limit}.")
        return TrainingError("training_timeout", f"Training did not end within the {limit} that are allowed.")

    def _write_result(self, status: TrainingStatus, error: TrainingError | None, digest: str | None) -> None:
        checkpoints = self._folder.checkpoints()
        if error is not None:
            self._folder.add_event(error.message, level="error")
        result = TrainingResult(
            job=self._spec.job,
            attempt=self._spec.attempt,
            status=status,
            trained_tokens=self._trained_tokens(),
            started_at=self._started_at,
            finished_at=int(time.time()),
            metrics=self._metrics(),
            checkpoints=tuple(checkpoints),
            adapter=ADAPTER_FOLDER if digest else None,
            digest=digest,
            error=error,
        )
        self._folder.write_result(result)


def _in_thread(work: Callable[[], None]) -> None:
    """Run `work` so that the main thread stays free for signals (Ray Train takes SIGINT for itself there)."""
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            work()
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="fit", daemon=True).start()
    outcome.result()


def _stop_on_signals(timeout_s: float) -> None:
    def stop(number: int, _: FrameType | None) -> None:
        raise AttemptStopped(timed_out=number == signal.SIGALRM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, stop)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    os._exit(code)  # the thread of a stopped fit may still wait for Ray
