"""A multipart body, however it is cut on its way."""

from collections.abc import AsyncIterator

import pytest

from tokenyard.core.errors import InvalidRequest
from tokenyard.files.multipart import (
    MAX_FIELD_BYTES,
    MAX_PARTS,
    Field,
    FileChunk,
    FileEnd,
    FileStart,
    Part,
    read_multipart,
)

TYPE = "multipart/form-data; boundary=edge"
BODY = (
    b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="r\xc3\xb6ws.jsonl"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\none\r\n--edg\r\ntwo\r\n--edge--\r\n"
)


async def _read(content_type: str, *chunks: bytes) -> list[Part]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [part async for part in read_multipart(content_type, body())]


def _joined(parts: list[Part]) -> tuple[list[Part], bytes]:
    data = b"".join(part.data for part in parts if isinstance(part, FileChunk))
    return [part for part in parts if not isinstance(part, FileChunk)], data


async def test_the_parts_do_not_depend_on_the_chunks() -> None:
    whole = _joined(await _read(TYPE, BODY))
    assert whole == (
        [Field("purpose", "fine-tune"), FileStart("file", "röws.jsonl"), FileEnd()],
        b"one\r\n--edg\r\ntwo",
    )
    for cut in range(1, len(BODY)):
        assert _joined(await _read(TYPE, BODY[:cut], BODY[cut:])) == whole
    assert _joined(await _read(TYPE, *(BODY[i : i + 1] for i in range(len(BODY))))) == whole


async def test_a_body_that_is_cut_short_is_refused() -> None:
    for cut in range(len(BODY) - 8):
        with pytest.raises(InvalidRequest):
            await _read(TYPE, BODY[:cut])


def _field(name: str, value: bytes) -> bytes:
    return f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", BODY),
        (f"multipart/form-data; boundary={'x' * 300}", BODY),
        (TYPE, _field("purpose", b"x" * (MAX_FIELD_BYTES + 1))),
        (TYPE, _field("a", b"b") * (MAX_PARTS + 1)),
        (TYPE, b"--edge\r\nX-Long: " + b"x" * (MAX_FIELD_BYTES + 1)),
    ],
)
async def test_what_is_not_a_small_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await _read(content_type, body)
