"""What training and the check of files have in common: runs in the cluster, told by a spec, that leave a result."""

import logging
import shlex
from typing import TypeVar

import msgspec

from tokenyard.core.training import RESULT_FILE, SPEC_FILE
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import TrainingFiles, TrainingRuns
from tokenyard.storage.blobs import BlobStore

CLUSTER_AWAY = "the training cluster, which does not answer"
NO_ROOM = "room in the training cluster"
_LOG = logging.getLogger(__name__)

Result = TypeVar("Result")


def file_urls(blobs: BlobStore, files: TrainingFiles, job: Job) -> dict[str, str]:
    """Return where a job's files are, by the field of the request that names them."""
    return {name: blobs.url_of(files.path(job.organization, file)) for name, file in job.files.items()}


async def write_spec(blobs: BlobStore, folder: str, spec: msgspec.Struct, entrypoint: str) -> str:
    """Write a run's spec; return the command that runs it."""
    path = f"{folder}/{SPEC_FILE}"
    await blobs.write(path, msgspec.json.encode(spec))
    return f"{entrypoint} {shlex.quote(blobs.url_of(path))}"


async def read_result(blobs: BlobStore, folder: str, decoder: "msgspec.json.Decoder[Result]") -> Result | None:
    """Return how a run ended; None where it did not say so, or nothing that can be read."""
    try:
        return decoder.decode(await blobs.read(f"{folder}/{RESULT_FILE}"))
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        _LOG.error("the result in %s is malformed: %s", folder, error)
        return None


async def stop_run(runs: TrainingRuns, submission: str) -> bool:
    """Ask a run to stop; tell whether there was one."""
    status = await runs.status(submission)
    active = status is not None and status.state.is_active
    if active:
        await runs.stop(submission)
    return active
