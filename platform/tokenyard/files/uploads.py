"""Takes an upload in: streams it to the blob store, checks it, and makes it a file."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tokenyard.core.errors import InvalidRequest, PayloadTooLarge, RateLimited, Unavailable
from tokenyard.core.ids import FileId, OrganizationId, new_file_id
from tokenyard.core.principal import Principal
from tokenyard.files.multipart import Field, FileChunk, FileEnd, FileStart, Part, read_multipart
from tokenyard.files.ports import PurposeRule
from tokenyard.files.store import FileStore, StoredFile
from tokenyard.storage.blobs import CHUNK_BYTES, BlobStore
from tokenyard.storage.quota import StorageQuota

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals", "adapter")
MAX_UPLOADS_AT_ONCE = 16
# So that one organization with slow connections cannot take them all.
MAX_UPLOADS_OF_ONE = 8
STALL_LIMIT_S = 30.0
MIN_EXPIRY_S = 3600
MAX_EXPIRY_S = 2_592_000
_MAX_NAME = 255
FORM: Mapping[str, Any] = {
    "type": "object",
    "required": ["file", "purpose"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
        "purpose": {"type": "string", "enum": list(PURPOSES)},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": MIN_EXPIRY_S, "maximum": MAX_EXPIRY_S},
    },
    "dependentRequired": {
        "expires_after[anchor]": ["expires_after[seconds]"],
        "expires_after[seconds]": ["expires_after[anchor]"],
    },
}
"""The JSON schema of an upload's fields, for the description."""
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
        self,
        files: FileStore,
        blobs: BlobStore,
        rules: Mapping[str, PurposeRule],
        *,
        max_bytes: int,
        quota: StorageQuota,
        stall_limit_s: float = STALL_LIMIT_S,
    ) -> None:
        """Take `rules` by the purpose whose files must keep them."""
        self._files = files
        self._blobs = blobs
        self._rules = rules
        self._max_bytes = max_bytes
        self._quota = quota
        self._stall_limit_s = stall_limit_s
        self._running: Counter[OrganizationId] = Counter()

    async def receive(
        self, principal: Principal, content_type: str, content_length: int | None, body: AsyncIterator[bytes]
    ) -> StoredFile:
        """Store an upload and return its file.

        Raises:
            InvalidRequest: a field is missing or wrong, or the training file is not one (naming the lines).
            PayloadTooLarge: over the limit, known from its length or while it arrives.
            QuotaExceeded: the organization has no room for it.
            RateLimited: too many uploads of this organization at once.
            Unavailable: too many uploads at once.
        """
        if content_length is not None and content_length > self._max_bytes + _FORM_BYTES:
            raise self._too_large()
        with self._slot(principal.organization):
            return await self._receive(principal, content_type, self._without_stalls(body))

    @contextmanager
    def _slot(self, organization: OrganizationId) -> Iterator[None]:
        if self._running[organization] >= MAX_UPLOADS_OF_ONE:
            raise RateLimited(f"At most {MAX_UPLOADS_OF_ONE} uploads of an organization at once.", retry_after_s=5)
        if self._running.total() >= MAX_UPLOADS_AT_ONCE:
            raise Unavailable("Too many uploads at once.", retry_after_s=5)
        self._running[organization] += 1
        try:
            yield
        finally:
            self._running[organization] -= 1
            if not self._running[organization]:
                del self._running[organization]

    async def _without_stalls(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
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

    async def _receive(self, principal: Principal, content_type: str, body: AsyncIterator[bytes]) -> StoredFile:
        await self._quota.check(principal.organization, 1, param="file")
        file = new_file_id()
        path = self._files.path(principal.organization, file)
        created_at = await self._files.begin(principal.organization, principal.project, file)
        try:
            form = await self._store(path, read_multipart(content_type, body))
            stored = await self._checked(path, file, form, created_at)
            await self._files.complete(principal.organization, stored, self._quota)
        except BaseException:
            await self._blobs.delete(path)
            await self._files.forget(principal.organization, file)
            raise
        return stored

    async def _store(self, path: str, parts: AsyncIterator[Part]) -> _Form:
        form = _Form(fields={})
        async for part in parts:
            match part:
                case Field(name, value):
                    if name not in FORM["properties"] or name == "file":
                        raise InvalidRequest(f"Unknown parameter: '{name[:64]}'.", param=name[:64])
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

    async def _checked(self, path: str, file: FileId, form: _Form, created_at: int) -> StoredFile:
        purpose = form.fields.get("purpose")
        if purpose not in PURPOSES:
            given = f"'{purpose[:32]}' is not one of" if purpose else "Missing required field `purpose`: one of"
            raise InvalidRequest(f"{given} {', '.join(PURPOSES)}.", param="purpose")
        if form.filename is None:
            raise InvalidRequest("Missing required field `file`.", param="file")
        if not form.size:
            raise InvalidRequest("The file is empty.", param="file")
        rule = self._rules.get(purpose)
        if rule is not None and not form.filename.lower().endswith(rule.suffix):
            raise InvalidRequest(f"{rule.what.capitalize()} must be a {rule.suffix} file.", param="file")
        return StoredFile(
            id=file,
            filename=form.filename,
            purpose=purpose,
            bytes=form.size,
            created_at=created_at,
            expires_at=_expiry(form.fields, created_at),
            summary=None if rule is None else await rule.check(self._blobs.read_stream(path)),
        )

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The file is larger than {self._max_bytes} bytes.", param="file")


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
