"""The loop of files that a worker process runs; any number of workers may run it."""

from tokenyard.files.operator_store import FileOperatorStore
from tokenyard.files.store import FileStore
from tokenyard.storage.blobs import BlobStore
from tokenyard.web.loops import Loop

FILES_AT_ONCE = 100
CLEAN_INTERVAL_S = 60.0


def cleaning_loop(leftovers: FileOperatorStore, files: FileStore, blobs: BlobStore) -> Loop:
    """Return the loop that removes the bytes of files that were deleted, expired or never uploaded to the end."""

    async def clean() -> None:
        for organization, file in await leftovers.leftovers(limit=FILES_AT_ONCE):
            # Bytes first, then the record: a death in between is made good by the next round.
            await blobs.delete(files.path(organization, file))
            await files.forget(organization, file)

    return Loop("clean up files", clean, CLEAN_INTERVAL_S)
