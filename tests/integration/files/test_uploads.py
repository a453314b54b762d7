"""An upload is never whole in memory, and one that breaks off leaves nothing for long."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from support.finetune.stack import FinetuneStack, principal
from support.finetune.training_rows import rows
from tokenyard.core.errors import InvalidRequest, RateLimited
from tokenyard.files.operator_store import STALE_UPLOAD_MS
from tokenyard.files.store import StoredFile
from tokenyard.files.uploads import MAX_UPLOADS_OF_ONE

MIB = 1024 * 1024


async def _large(purpose: str, block: bytes, times: int) -> AsyncIterator[bytes]:
    yield f'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'.encode()
    yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="teach.jsonl"\r\n\r\n'
    for _ in range(times):
        yield block
    yield b"\r\n--b--\r\n"


async def test_a_large_file_is_streamed_in_little_memory(stack: FinetuneStack) -> None:
    uploads = stack.uploads(max_bytes=64 * MIB)
    body = _large("user_data", b"x" * 65536, 1000)
    tracemalloc.start()
    try:
        view = await uploads.receive(principal(), "multipart/form-data; boundary=b", None, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert view.bytes == 1000 * 65536
    assert peak < 8 * MIB


async def test_a_large_training_file_is_checked_to_its_last_line(stack: FinetuneStack) -> None:
    uploads = stack.uploads(max_bytes=64 * MIB)
    body = _large("fine-tune", rows(500), 100)
    view = await uploads.receive(principal(), "multipart/form-data; boundary=b", None, body)
    assert view.summary is not None
    assert view.summary["rows"] == 50_000


async def test_a_slow_upload_has_one_time_of_creation(stack: FinetuneStack) -> None:
    async def slow() -> AsyncIterator[bytes]:
        async for chunk in _large("fine-tune", rows(1), 3):
            stack.clock.advance(10)
            yield chunk

    uploads = stack.uploads(max_bytes=MIB)
    view = await uploads.receive(principal(), "multipart/form-data; boundary=b", None, slow())
    assert await stack.files.get(principal().organization, view.id) == view


async def test_a_client_that_leaves_leaves_nothing(stack: FinetuneStack) -> None:
    class ClientLeft(Exception):
        pass

    async def cut_off() -> AsyncIterator[bytes]:
        async for chunk in _large("fine-tune", rows(500), 10):
            if chunk.startswith(b"\r\n--b--"):
                raise ClientLeft
            yield chunk

    uploads = stack.uploads(max_bytes=64 * MIB)
    with pytest.raises(ClientLeft):
        await uploads.receive(principal(), "multipart/form-data; boundary=b", None, cut_off())
    assert await stack.blobs.names("files/org_acme") == []
    assert await _leftovers(stack) == []


async def test_what_a_dead_gateway_left_is_cleaned_up_later(stack: FinetuneStack) -> None:
    who = principal()
    file = await stack.upload(who, rows(1))
    await stack.files.forget(who.organization, file)
    await stack.files.begin(who.organization, who.project, file)  # as a gateway that died while it received the file
    await stack.round()
    assert await stack.blobs.names("files/org_acme") == [file]
    stack.clock.advance(STALE_UPLOAD_MS / 1000 + 1)
    await stack.round()
    assert await stack.blobs.names("files/org_acme") == []


async def _leftovers(stack: FinetuneStack) -> list[StoredFile]:
    return await stack.files.page(principal().organization, purpose=None, limit=10, after=None, newest_first=True)


async def test_an_upload_that_stalls_is_ended(stack: FinetuneStack) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
        await asyncio.Event().wait()

    uploads = stack.uploads(max_bytes=MIB, stall_limit_s=0.05)
    with pytest.raises(InvalidRequest, match="stalled"):
        await uploads.receive(principal(), "multipart/form-data; boundary=b", None, stalled())
    assert await _leftovers(stack) == []


async def test_one_organization_cannot_take_every_place(stack: FinetuneStack) -> None:
    begun = asyncio.Semaphore(0)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.release()
        await go_on.wait()
        async for chunk in _large("user_data", b"x", 1):
            yield chunk

    uploads = stack.uploads(max_bytes=MIB)

    def upload(who: str) -> Coroutine[Any, Any, StoredFile]:
        return uploads.receive(principal(who), "multipart/form-data; boundary=b", None, slow())

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(MAX_UPLOADS_OF_ONE):
            group.create_task(upload("acme"))
        for _ in range(MAX_UPLOADS_OF_ONE):
            await begun.acquire()
        with pytest.raises(RateLimited):
            await upload("acme")
        other = group.create_task(upload("rival"))
        await begun.acquire()
        go_on.set()
    assert (await other).bytes == 1
    await upload("acme")
