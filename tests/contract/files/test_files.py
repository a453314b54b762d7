"""Files as the `openai` SDK sees them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import httpx
import openai
import pytest
from openai.types import FileDeleted, FileObject
from sqlalchemy import func, select

from support.finetune.fixtures import FILES_QUOTA_BYTES, MAX_UPLOAD_BYTES, Platform
from support.finetune.rows import rows
from support.openai_errors import error_of, message_of
from support.openai_schema import check_openai_schema, check_openai_type
from tokenyard.files.tables import FileRow


async def test_a_file_lives_from_upload_to_deletion(platform: Platform) -> None:
    data = rows(3)
    made = await platform.acme.files.create(file=("teach.jsonl", data), purpose="fine-tune")
    assert made.id.startswith("file-")
    assert (made.object, made.bytes, made.filename, made.purpose, made.status) == (
        *("file", len(data), "teach.jsonl", "fine-tune", "processed"),
    )
    assert made.expires_at is None
    assert await platform.acme.files.retrieve(made.id) == made
    assert (await platform.acme.files.content(made.id)).content == data
    listed = await platform.acme.files.list()
    assert listed.data == [made]
    deleted = await platform.acme.files.delete(made.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (made.id, "file", True)
    with pytest.raises(openai.NotFoundError):
        await platform.acme.files.retrieve(made.id)
    assert [path for path in platform.folder.rglob("*") if path.is_file()] == []


async def test_files_are_exactly_openais(platform: Platform) -> None:
    async with httpx.AsyncClient(base_url=platform.url, headers={"authorization": "Bearer ty-acme"}) as http:
        expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
        for fields in ({"purpose": "fine-tune"}, {"purpose": "user_data"} | expiry):
            made = (await http.post("/v1/files", data=fields, files={"file": ("a.jsonl", rows(1))})).json()
            check_openai_type(made, FileObject)
            check_openai_schema(made, "OpenAIFile")
            assert ("expires_at" in made) == ("expires_after[anchor]" in fields)
            assert (await http.get(f"/v1/files/{made['id']}")).json() == made
        listed = (await http.get("/v1/files")).json()
        deleted = (await http.delete(f"/v1/files/{made['id']}")).json()
    check_openai_schema(listed, "ListFilesResponse")
    assert listed["data"][0] == made
    assert (listed["first_id"], listed["last_id"]) == (listed["data"][0]["id"], listed["data"][1]["id"])
    check_openai_type(deleted, FileDeleted)
    check_openai_schema(deleted, "DeleteFileResponse")


async def test_another_organizations_file_is_as_if_it_were_not_there(platform: Platform) -> None:
    made = await platform.acme.files.create(file=("teach.jsonl", rows(1)), purpose="fine-tune")
    calls: list[Callable[[str], Awaitable[object]]] = [
        platform.rival.files.retrieve,
        platform.rival.files.content,
        platform.rival.files.delete,
    ]
    for call in calls:
        with pytest.raises(openai.NotFoundError) as theirs:
            await call(made.id)
        with pytest.raises(openai.NotFoundError) as nobodys:
            await call("file-0000000000000000000000")
        assert error_of(theirs.value) == {**error_of(nobodys.value), "message": message_of(theirs.value)}
    assert (await platform.rival.files.list()).data == []
    with pytest.raises(openai.BadRequestError):
        await platform.rival.files.list(after=made.id)
    assert (await platform.acme.files.content(made.id)).content == rows(1)


async def test_lists_follow_the_cursor_in_both_orders(platform: Platform) -> None:
    made = [
        (await platform.acme.files.create(file=(f"{number}.txt", b"text"), purpose="user_data")).id
        for number in range(5)
    ]
    await platform.acme.files.create(file=("teach.jsonl", rows(1)), purpose="fine-tune")
    orders: list[tuple[Literal["asc", "desc"], list[str]]] = [("asc", made), ("desc", made[::-1])]
    for order, expected in orders:
        page = await platform.acme.files.list(purpose="user_data", limit=2, order=order)
        assert page.has_more
        assert [file.id async for file in page] == expected


async def test_wrong_lines_are_named(platform: Platform) -> None:
    good = rows(1).strip()
    bad = b"\n".join([good, b"{nonsense", good, json.dumps({"messages": []}).encode()])
    with pytest.raises(openai.BadRequestError) as refused:
        await platform.acme.files.create(file=("teach.jsonl", bad), purpose="fine-tune")
    message = message_of(refused.value)
    assert "line 2: not JSON" in message
    assert 'line 4: "messages" must be a list with at least one message' in message
    assert refused.value.code == "invalid_training_file"
    assert refused.value.param == "file"
    await _nothing_is_left(platform)


@pytest.mark.parametrize(
    ("file", "purpose", "said"),
    [
        (("teach.csv", b"a,b"), "fine-tune", ".jsonl"),
        (("teach.jsonl", b""), "fine-tune", "empty"),
        (("teach.jsonl", b"x"), "no-such-purpose", "not one of"),
    ],
)
async def test_what_is_wrong_is_said_and_nothing_is_kept(
    platform: Platform, file: tuple[str, bytes], purpose: Any, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await platform.acme.files.create(file=file, purpose=purpose)
    assert said in message_of(refused.value)
    await _nothing_is_left(platform)


async def test_too_large_a_file_is_refused_before_and_while_it_arrives(platform: Platform) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        await platform.acme.files.create(file=("big.txt", b"x" * (5 * 1024 * 1024)), purpose="user_data")
    assert refused.value.status_code == 413

    async def endless() -> AsyncIterator[bytes]:
        head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="big.txt"\r\n\r\n'
        yield head
        for _ in range(80):
            yield b"x" * 65536

    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{platform.url}/v1/files",
            content=endless(),
            headers={"authorization": "Bearer ty-acme", "content-type": "multipart/form-data; boundary=b"},
        )
    assert answer.status_code == 413
    await _nothing_is_left(platform)


async def test_an_organization_stores_so_much_and_no_more_whatever_comes_at_once(platform: Platform) -> None:
    large = b"x" * MAX_UPLOAD_BYTES

    async def upload(client: openai.AsyncOpenAI, data: bytes = large) -> str:
        return (await client.files.create(file=("large.txt", data), purpose="user_data")).id

    made = [await upload(platform.acme, large[:-1]) for _ in range(2)]
    answers = await asyncio.gather(*(upload(platform.acme) for _ in range(3)), return_exceptions=True)
    refused = [answer for answer in answers if not isinstance(answer, str)]
    assert [type(answer) for answer in refused] == [openai.RateLimitError] * 2
    assert all(isinstance(one, openai.APIError) and one.code == "storage_quota_exceeded" for one in refused)
    assert await upload(platform.acme, b"xx"), "to the last byte"
    with pytest.raises(openai.RateLimitError) as full:
        await upload(platform.acme, b"x")
    assert error_of(full.value)["type"] == "insufficient_quota"
    assert full.value.response.headers["x-should-retry"] == "false"
    files = [path for path in platform.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) == FILES_QUOTA_BYTES
    assert await upload(platform.rival), "another's files count for nothing here"
    await platform.acme.files.delete(made[0])
    assert await upload(platform.acme, large[:-1])


async def test_fields_may_follow_the_file_and_the_name_is_only_a_name(platform: Platform) -> None:
    body = (
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="../../etc/pass\x01wd"\r\n\r\nhello\r\n'
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--b\r\ncontent-disposition: form-data; name="expires_after[anchor]"\r\n\r\ncreated_at\r\n'
        b'--b\r\ncontent-disposition: form-data; name="expires_after[seconds]"\r\n\r\n3600\r\n--b--\r\n'
    )
    answer = await _post(platform, body)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert made["filename"] == "passwd"
    assert made["expires_at"] == made["created_at"] + 3600


@pytest.mark.parametrize(
    "body",
    [
        b"no parts at all",
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--b--\r\n',
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\ncut short',
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n' + b"x" * 10_000 + b"\r\n--b--\r\n",
        b'--b\r\ncontent-disposition: form-data; name="other"; filename="x"\r\n\r\ndata\r\n--b--\r\n',
        b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nno file at all\r\n--b--\r\n',
    ],
)
async def test_a_malformed_body_is_refused_in_openais_shape(platform: Platform, body: bytes) -> None:
    answer = await _post(platform, body)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    await _nothing_is_left(platform)


async def test_an_unknown_field_is_refused_by_name(platform: Platform) -> None:
    async with httpx.AsyncClient(base_url=platform.url, headers={"authorization": "Bearer ty-acme"}) as http:
        fields = {"purpose": "user_data", "visibility": "all"}
        refused = await http.post("/v1/files", data=fields, files={"file": ("a.txt", b"text")})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "visibility")
    await _nothing_is_left(platform)


async def test_a_key_is_needed(platform: Platform) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{platform.url}/v1/files")).status_code == 401


async def _post(platform: Platform, body: bytes) -> httpx.Response:
    headers = {"authorization": "Bearer ty-acme", "content-type": "multipart/form-data; boundary=b"}
    async with httpx.AsyncClient() as client:
        return await client.post(f"{platform.url}/v1/files", content=body, headers=headers)


async def _nothing_is_left(platform: Platform) -> None:
    async with platform.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(FileRow)) == 0
    assert [path for path in platform.folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("seconds", ["9" * 5000, "", "-3600", "3599", "2592001", "1e4"], ids=lambda text: text[:8])
async def test_an_expiry_out_of_range(platform: Platform, seconds: str) -> None:
    fields = {"purpose": "user_data", "expires_after[anchor]": "created_at", "expires_after[seconds]": seconds}
    async with httpx.AsyncClient(base_url=platform.url, headers={"authorization": "Bearer ty-acme"}) as http:
        refused = await http.post("/v1/files", data=fields, files={"file": ("a.txt", b"text")})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "expires_after[seconds]"
