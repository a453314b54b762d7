"""The Ray job that checks a job's files: `python -m tokenyard_deployments.training.data.job <url of spec.json>`."""

import logging
import os
import resource
import signal
import sys
from types import FrameType

import fsspec
import msgspec

from tokenyard.core.datasets.checking import CheckError, CheckLimits, CheckResult, CheckSpec
from tokenyard.core.training import RESULT_FILE
from tokenyard_deployments.training.attempt import AttemptFolder
from tokenyard_deployments.training.failures import AttemptStopped

_LOG = logging.getLogger(__name__)
# One core is enough, and threads take memory.
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def main(arguments: list[str]) -> int:
    """Check the files of a spec; exit 0 only where they can be used. The result file says the same in more words."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with fsspec.open(arguments[0], "rb") as file:
        spec = msgspec.json.decode(file.read(), type=CheckSpec)
    os.environ.update(_ENVIRONMENT)
    _keep_within(spec.limits)
    result = _result(spec)
    AttemptFolder(spec.output_url).write(RESULT_FILE, msgspec.json.encode(result))
    return 0 if result.error is None else 1


def _result(spec: CheckSpec) -> CheckResult:
    # Slow libraries, which are to be within the bounds, too.
    from transformers import AutoTokenizer  # noqa: PLC0415

    from tokenyard_deployments.training.data.check import FileRefused, check_files  # noqa: PLC0415

    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.base_model_path, trust_remote_code=False)
        return CheckResult(report=check_files(spec, tokenizer))
    except FileRefused as refused:
        return CheckResult(error=refused.error)
    except AttemptStopped:
        minutes = f"{spec.limits.timeout_s / 60:g} minutes"
        return _broken_off("validation_timeout", f"The files could not be checked within {minutes}.")
    except MemoryError:
        return _broken_off("validation_out_of_memory", "Checking the files took more memory than is allowed.")
    except Exception:
        _LOG.exception("check %d of %s broke off", spec.run, spec.job)
        return _broken_off("validation_interrupted", "Checking the files broke off because of a fault of the platform.")


def _broken_off(code: str, message: str) -> CheckResult:
    return CheckResult(error=CheckError(code, message, retryable=True))


def _keep_within(limits: CheckLimits) -> None:
    def stop(number: int, _: FrameType | None) -> None:
        raise AttemptStopped(timed_out=True)

    os.nice(max(0, limits.nice - os.nice(0)))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limits.timeout_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
