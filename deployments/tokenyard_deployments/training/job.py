"""The Ray job of one training attempt: `python -m tokenyard_deployments.training.job <url of spec.json>`."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType

from tokenyard.core.adapters import AdapterNotAllowed
from tokenyard.core.training import (
    ADAPTER_FOLDER,
    INTERRUPTED,
    RESUME_FOLDER,
    ResumePoint,
    TrainingCheckpoint,
    TrainingError,
    TrainingResult,
    TrainingSpec,
    TrainingStatus,
    best_checkpoint,
    step_folder,
)
from tokenyard_deployments.training.attempt import AttemptFolder, read_spec
from tokenyard_deployments.training.export import export_adapter
from tokenyard_deployments.training.failures import AttemptStopped, TrainingFailed, interrupted
from tokenyard_deployments.training.ray_train import disconnect, fit

_LOG = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run the attempt; exit 0 only where it succeeded. The result file says the same in more words."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    spec = read_spec(arguments[0])
    _stop_on_signals()
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
            if self._is_paused():
                status = TrainingStatus.PAUSED
            else:
                digest = self._export()
                status = TrainingStatus.SUCCEEDED
        except AttemptStopped:
            status = TrainingStatus.CANCELLED
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
        resources = self._spec.resources
        each = f"{resources.gpus:g} GPU" if resources.gpus else f"{resources.cpus:g} CPU"
        count = resources.num_workers
        wanted = f"a training worker with {each}" if count == 1 else f"{count} training workers with {each} each"
        _, point = self._newest()
        if point is not None and point.is_last:
            return  # only what comes after training was lost
        self._folder.add_event(f"Waiting for {wanted}")
        try:
            _in_thread(lambda: fit(self._spec))
        finally:
            disconnect()
            self._folder = AttemptFolder(self._spec.output_url)  # the worker has added events

    def _is_paused(self) -> bool:
        """Tell whether training ended before its last step because it was asked to pause."""
        _, point = self._newest()
        return point is not None and not point.is_last and self._folder.is_to_pause()

    def _export(self) -> str:
        source, point = self._newest()
        if point is None:
            raise TrainingFailed(INTERRUPTED, "Training ended without a checkpoint.", retryable=True)
        try:
            chosen = self._chosen(source)
            path = step_folder(RESUME_FOLDER, point.step_number) if chosen is None else chosen.path
            digest = export_adapter(self._spec, self._folder, source, path)
        except AdapterNotAllowed as refusal:
            raise TrainingFailed(refusal.code, refusal.message) from refusal
        self._folder.add_event("The adapter passed its checks")
        return digest

    def _newest(self) -> tuple[AttemptFolder, ResumePoint | None]:
        """Return where the last resume point stands: before the attempt's own first one, that which it began from."""
        point = self._folder.resume_point()
        if point is None and self._spec.resume_url is not None:
            earlier = AttemptFolder(self._spec.resume_url)
            return earlier, earlier.resume_point()
        return self._folder, point

    def _chosen(self, source: AttemptFolder) -> TrainingCheckpoint | None:
        """Return the checkpoint that becomes the model where that is not simply what the last step left."""
        found = source.checkpoints()
        early = self._spec.hyperparameters.early_stopping_patience is not None
        return best_checkpoint(found) if early and found else None

    def _metrics(self) -> dict[str, float]:
        source, _ = self._newest()
        counts, checkpoints = self._folder.counts() or source.counts(), source.checkpoints()
        chosen = self._chosen(source) or (checkpoints[-1] if checkpoints else None)
        metrics = dict(chosen.metrics) if chosen is not None else {}
        metrics.pop("step", None)
        base = {} if counts is None else counts.base
        return metrics | {f"base_valid_{name}": value for name, value in base.items()}

    def _write_result(self, status: TrainingStatus, error: TrainingError | None, digest: str | None) -> None:
        _, point = self._newest()
        if error is not None:
            self._folder.add_event(error.message, level="error")
        result = TrainingResult(
            job=self._spec.job,
            attempt=self._spec.attempt,
            status=status,
            trained_tokens=point.trained_tokens if point is not None else 0,
            started_at=self._started_at,
            finished_at=int(time.time()),
            metrics=self._metrics(),
            checkpoints=tuple(self._folder.checkpoints()),
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


def _stop_on_signals() -> None:
    def stop(_number: int, _: FrameType | None) -> None:
        raise AttemptStopped

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    os._exit(code)  # the thread of a stopped fit may still wait for Ray
