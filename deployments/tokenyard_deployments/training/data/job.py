"""The Ray job that checks a job's files: `python -m tokenyard_deployments.training.data.job <url of spec.json>`."""

import logging
import os
import resource
import sys
import threading
import time

import fsspec
import msgspec

from tokenyard.core.datasets.checking import CheckError, CheckLimits, CheckResult, CheckSpec
from tokenyard.core.training import RESULT_FILE
from tokenyard_deployments.training.attempt import AttemptFolder

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.1
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
# One core is enough, and threads take memory.
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def main(arguments: list[str]) -> int:
    """Check the files of a spec; exit 0 only where they can be used. The result file says the same in more words."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with fsspec.open(arguments[0], "rb") as file:
        spec = msgspec.json.decode(file.read(), type=CheckSpec)
    os.environ.update(_ENVIRONMENT)
    os.nice(max(0, spec.limits.nice - os.nice(0)))
    run = CheckRun(spec)
    threading.Thread(target=run.watch, args=(spec.limits,), name="bounds", daemon=True).start()
    return run.end(_result(spec))


class CheckRun:
    """Writes one result, whichever comes first: the check's, or that it broke its bounds."""

    def __init__(self, spec: CheckSpec) -> None:
        self._spec = spec
        self._ending = threading.Lock()

    def end(self, result: CheckResult) -> int:
        """Write the result; return the exit status."""
        self._ending.acquire()  # never released: there is one end
        AttemptFolder(self._spec.output_url).write(RESULT_FILE, msgspec.json.encode(result))
        return 0 if result.error is None else 1

    def watch(self, limits: CheckLimits) -> None:
        """End the process where it takes too much time or memory, also in the midst of a library's own code."""
        deadline = time.monotonic() + limits.timeout_s
        while (broken := _broken_bound(limits, deadline)) is None:
            time.sleep(_LOOK_S)
        os._exit(self.end(broken))


def _broken_bound(limits: CheckLimits, deadline: float) -> CheckResult | None:
    if time.monotonic() > deadline:
        minutes = f"{limits.timeout_s / 60:g} minutes"
        return _broken_off("validation_timeout", f"The files could not be checked within {minutes}.")
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT > limits.memory_bytes:
        return _broken_off("validation_out_of_memory", "Checking the files took more memory than is allowed.")
    return None


def _result(spec: CheckSpec) -> CheckResult:
    # Slow libraries, which are to be within the bounds, too.
    from transformers import AutoTokenizer  # noqa: PLC0415

    from tokenyard_deployments.training.data.check import FileRefused, check_files  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.base_model_path, trust_remote_code=False)
        return CheckResult(report=check_files(spec, tokenizer))
    except FileRefused as refused:
        return CheckResult(error=refused.error)
    except Exception:
        _LOG.exception("check %d of %s broke off", spec.run, spec.job)
        return _broken_off("validation_interrupted", "Checking the files broke off because of a fault of the platform.")


def _broken_off(code: str, message: str) -> CheckResult:
    return CheckResult(error=CheckError(code, message, retryable=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
