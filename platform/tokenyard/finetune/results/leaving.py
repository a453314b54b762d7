"""Files that a job leaves its tenant: written first, and entered in the transaction that says so."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import TrainingFiles
from tokenyard.storage.blobs import BlobStore

PURPOSE = "fine-tune-results"


class LeftFile(NamedTuple):
    """Its `id` follows from the job's: however often it is written, there is one."""

    id: FileId
    filename: str
    content: bytes


class LeftFiles:
    """Where they are written, and the list that they are entered in."""

    def __init__(self, files: TrainingFiles, blobs: BlobStore) -> None:
        self._files = files
        self._blobs = blobs

    async def write(self, job: Job, left: Sequence[LeftFile]) -> Callable[[AsyncSession], Awaitable[None]]:
        """Write the files; return what enters them, as part of the transaction it is given."""
        for file in left:
            await self._blobs.write(self._files.path(job.organization, file.id), file.content)

        async def enter(session: AsyncSession) -> None:
            for file in left:
                await self._files.enter(
                    job.organization,
                    session,
                    project=job.project,
                    file=file.id,
                    filename=file.filename,
                    purpose=PURPOSE,
                    size=len(file.content),
                )

        return enter
