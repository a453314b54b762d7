"""Files that nobody can train on: each is refused at upload by its line and the reason, and leaves nothing behind."""

import json

import openai
import pytest
from sqlalchemy import func, select

from support.finetune.fixtures import Platform
from support.finetune.rows import rows
from support.openai_errors import message_of
from tokenyard.files.tables import FileRow
from tokenyard.finetune.tables import JobRow

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}


def line(*messages: object) -> bytes:
    return json.dumps({"messages": messages}).encode() + b"\n"


BAD = {
    "no JSON": (rows(1) + b"hello\n", "line 2: not JSON"),
    "a table": (b"question,answer\nHi,Hello\n", "line 1: not JSON"),
    "one JSON list": (b"[" + rows(1).strip() + b"]\n", 'line 1: must be a JSON object with "messages"'),
    "an unknown role": (rows(1) + line({"role": "human", "content": "Hi"}, ANSWER), "line 2: messages[0].role must be"),
    "the assistant first": (line(ANSWER), "line 1: the first message must not be from the assistant"),
    "the user last": (rows(1) + line(USER, ANSWER, USER), "line 2: the last message must be from the assistant"),
    "an empty answer": (line(USER, {**ANSWER, "content": " "}), "line 1: messages[1].content is empty"),
    "only blank lines": (b"\n \n", "line 1: the file is empty"),
    "a blank line between": (rows(1) + b"\n" + rows(1), "line 2: the line is empty"),
    "a line too long": (rows(1) + b'{"messages": "' + b"x" * 3_500_000, "line 2: longer than 1048576 bytes"),
    "bytes": (bytes(range(256)) * 8, "line 1: "),
    "a zip": (b"PK\x03\x04\x14\x00\x08\x00" + bytes(200), "line 1: not JSON"),
    "a mark of UTF-8": (b"\xef\xbb\xbf" + rows(2), "line 1: begins with a byte order mark"),
    "UTF-16": (rows(2).decode().encode("utf-16"), "line 1: not UTF-8 but UTF-16"),
    "Latin-1": (rows(1) + line(USER, ANSWER).replace(b"Hello", b"H\xe9llo"), "line 2: not UTF-8 (byte "),
    "old newlines": (rows(2).replace(b"\n", b"\r"), "line 1: a carriage return stands inside the line"),
    "two rows on a line": (rows(1).strip() + rows(1), "line 1: not JSON"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_file_is_refused_by_its_line(platform: Platform, name: str) -> None:
    data, said = BAD[name]
    with pytest.raises(openai.BadRequestError) as refused:
        await platform.acme.files.create(file=("teach.jsonl", data), purpose="fine-tune")
    assert said in message_of(refused.value)
    assert (refused.value.code, refused.value.param) == ("invalid_training_file", "file")
    await nothing_is_left(platform)


async def test_windows_newlines_and_a_mixture_are_fine(platform: Platform) -> None:
    data = rows(2).replace(b"\n", b"\r\n") + rows(1)
    assert (await platform.acme.files.create(file=("teach.jsonl", data), purpose="fine-tune")).status == "processed"


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
async def test_another_tenants_file_is_as_if_it_were_not_there(platform: Platform, field: str) -> None:
    own = await platform.rival.files.create(file=("teach.jsonl", rows(20)), purpose="fine-tune")
    theirs = await platform.acme.files.create(file=("teach.jsonl", rows(20)), purpose="fine-tune")
    said = []
    for file in (theirs.id, "file-0000000000000000000000"):
        files = {"training_file": own.id, field: file}
        with pytest.raises(openai.BadRequestError) as refused:
            await platform.rival.fine_tuning.jobs.create(model="small-model", **files)  # type: ignore[arg-type]
        assert (refused.value.code, refused.value.param) == ("file_not_found", field)
        said.append(message_of(refused.value).replace(file, "FILE"))
    assert said[0] == said[1]
    assert platform.reservations.open == {}
    async with platform.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(JobRow)) == 0


async def nothing_is_left(platform: Platform) -> None:
    async with platform.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(FileRow)) == 0
    assert [path for path in platform.folder.rglob("*") if path.is_file()] == []
