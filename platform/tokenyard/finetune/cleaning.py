"""Removes the bytes of files that nobody can see: deleted, expired, or never uploaded to the end."""

from tokenyard.finetune.files import FileStore, file_path
from tokenyard.finetune.operator_store import FileOperatorStore
from tokenyard.storage.blobs import BlobStore

FILES_AT_ONCE = 100


class FileCleaner:
    """Bytes first, then the record: a death in between is made good by the next round."""

    def __init__(self, *, leftovers: FileOperatorStore, files: FileStore, blobs: BlobStore) -> None:
        self._leftovers = leftovers
        self._files = files
        self._blobs = blobs

    async def step(self) -> None:
        """Remove some leftovers."""
        for organization, file in await self._leftovers.leftovers(limit=FILES_AT_ONCE):
            await self._blobs.delete(file_path(organization, file))
            await self._files.forget(organization, file)
