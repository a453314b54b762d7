"""Takes an upload in: streams it to the blob store, checks it, and makes it a file."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tokenyard.core.errors import InvalidRequest, PayloadTooLarge, RateLimited, Unavailable
from tokenyard.core.ids import FileId, OrganizationId, new_file_id
from tokenyard.core.principal import Principal
from tokenyard.finetune.dataset import DatasetSummary, InvalidDataset, check_dataset
from tokenyard.finetune.files import FINE_TUNE, PURPOSES, FileStore, FileView, file_path
from tokenyard.finetune.multipart import Field, FileChunk, FileEnd, FileStart, Part, read_multipart
from tokenyard.storage.blobs import CHUNK_BYTES, BlobStore

MAX_UPLOADS_AT_ONCE = 16
# So that one organization with slow connections cannot take them all.
MAX_UPLOADS_OF_ONE = 8
STALL_LIMIT_S = 30.0
MIN_EXPIRY_S = 3600
MAX_EXPIRY_S = 2_592_000
_MAX_NAME = 255
# A body is a little larger than its file: the fields and boundaries.
_FORM_BYTES = 256 * 1024


@dataclass
class _Form:
    fields: dict[str, str]
    filename: str | None = None
    size: int = 0


class Uploads:
    """Receives files. Never holds more than about a megabyte of one in memory."""

    def __init__(
        self, files: FileStore, blobs: BlobStore, *, max_bytes: int, stall_limit_s: float = STALL_LIMIT_S
    ) -> None:
        self._files = files
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._stall_limit_s = stall_limit_s
        self._running: Counter[OrganizationId] = Counter()

    async def receive(
        self, principal: Principal, content_type: str, content_length: int | None, body: AsyncIterator[bytes]
    ) -> FileView:
        """Store an upload and return its file.

        Raises:
            InvalidRequest: a field is missing or wrong, or the training file is not one (naming the lines).
            PayloadTooLarge: over the limit, known from its length or while it arrives.
            RateLimited: too many uploads of this organization at once.
            Unavailable: too many uploads at once.
        """
        if content_length is not None and content_length > self._max_bytes + _FORM_BYTES:
            raise self._too_large()
        with self._turn(principal.organization):
            return await self._receive(principal, content_type, self._steady(body))

    @contextmanager
    def _turn(self, organization: OrganizationId) -> Iterator[None]:
        if self._running[organization] >= MAX_UPLOADS_OF_ONE:
            raise RateLimited(
                f"At most {MAX_UPLOADS_OF_ONE} uploads of an organization at once.", headers={"retry-after": "5"}
            )
        if self._running.total() >= MAX_UPLOADS_AT_ONCE:
            raise Unavailable("Too many uploads at once.", retry_after_s=5)
        self._running[organization] += 1
        try:
            yield
        finally:
            self._running[organization] -= 1
            if not self._running[organization]:
                del self._running[organization]

    async def _steady(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass the body on, and end it where nothing comes for too long."""
        while True:
            try:
                async with asyncio.timeout(self._stall_limit_s):
                    chunk = await anext(body)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise InvalidRequest("The upload stalled.") from None
            yield chunk

    async def _receive(self, principal: Principal, content_type: str, body: AsyncIterator[bytes]) -> FileView:
        file = new_file_id()
        created_at = await self._files.begin(principal.organization, principal.project, file)
        try:
            form = await self._store(file_path(principal.organization, file), read_multipart(content_type, body))
            view = await self._checked(principal, file, form, created_at)
            await self._files.complete(principal.organization, view)
        except BaseException:
            await self._discard(principal, file)
            raise
        return view

    async def _discard(self, principal: Principal, file: FileId) -> None:
        await self._blobs.delete(file_path(principal.organization, file))
        await self._files.forget(principal.organization, file)

    async def _store(self, path: str, parts: AsyncIterator[Part]) -> _Form:
        form = _Form(fields={})
        async for part in parts:
            match part:
                case Field(name, value):
                    form.fields[name] = value
                case FileStart(name, filename):
                    if name != "file" or form.filename is not None:
                        raise InvalidRequest("Send exactly one file, in the field `file`.", param=name)
                    form.filename = _plain_name(filename)
                    form.size = await self._blobs.write_stream(path, self._limited(_file_of(parts)))
        return form

    async def _limited(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Gather small chunks into large ones, and end the upload where it is over the limit."""
        size = 0
        gathered = bytearray()
        async for chunk in chunks:
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large()
            gathered += chunk
            if len(gathered) >= CHUNK_BYTES:
                yield bytes(gathered)
                gathered.clear()
        if gathered:
            yield bytes(gathered)

    async def _checked(self, principal: Principal, file: FileId, form: _Form, created_at: int) -> FileView:
        purpose = form.fields.get("purpose")
        if purpose not in PURPOSES:
            given = f"'{purpose[:32]}' is not one of" if purpose else "Missing required field `purpose`: one of"
            raise InvalidRequest(f"{given} {', '.join(PURPOSES)}.", param="purpose")
        if form.filename is None:
            raise InvalidRequest("Missing required field `file`.", param="file")
        if not form.size:
            raise InvalidRequest("The file is empty.", param="file")
        return FileView(
            id=file,
            organization=principal.organization,
            filename=form.filename,
            purpose=purpose,
            bytes=form.size,
            created_at=created_at,
            expires_at=_expiry(form.fields, created_at),
            summary=await self._summary(principal, file, form.filename) if purpose == FINE_TUNE else None,
        )

    async def _summary(self, principal: Principal, file: FileId, filename: str) -> DatasetSummary:
        if not filename.lower().endswith(".jsonl"):
            raise InvalidRequest("A training file must be a .jsonl file: one JSON object a line.", param="file")
        try:
            return await check_dataset(self._blobs.read_stream(file_path(principal.organization, file)))
        except InvalidDataset as error:
            raise invalid_dataset(error, "file") from error

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The file is larger than {self._max_bytes} bytes.", param="file")


def invalid_dataset(error: InvalidDataset, param: str) -> InvalidRequest:
    """Return the error a user sees, with its lines."""
    found = "\n".join(str(problem) for problem in error.problems)
    return InvalidRequest(f"The training file cannot be used:\n{found}", code="invalid_training_file", param=param)


async def _file_of(parts: AsyncIterator[Part]) -> AsyncIterator[bytes]:
    async for part in parts:
        if isinstance(part, FileEnd):
            return
        assert isinstance(part, FileChunk)
        yield part.data


def _plain_name(filename: str) -> str:
    """Keep what a listing can show: no folders, no control characters. It never becomes a path."""
    last = filename.replace("\\", "/").rpartition("/")[2]
    printable = "".join(letter for letter in last if letter.isprintable())
    return printable[-_MAX_NAME:] or "file"


def _expiry(fields: dict[str, str], created_at: int) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InvalidRequest("expires_after.anchor must be 'created_at'.", param="expires_after[anchor]")
    number = seconds is not None and len(seconds) <= len(str(MAX_EXPIRY_S)) and seconds.isdecimal()
    if seconds is None or not number or not MIN_EXPIRY_S <= int(seconds) <= MAX_EXPIRY_S:
        raise InvalidRequest(
            f"expires_after.seconds must be a whole number from {MIN_EXPIRY_S} to {MAX_EXPIRY_S}.",
            param="expires_after[seconds]",
        )
    return created_at + int(seconds)
