"""What is recorded of a reply, how it is encrypted, and which headers ask for it."""

import asyncio
from typing import Any

import pytest

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.gateway.idempotency.encryption import LARGE_BYTES, ReplyCipher, Unreadable
from tokenyard.gateway.idempotency.recording import MAX_REPLY_BYTES, NoSuchEvent, RecordedReply, ReplyRecorder
from tokenyard.gateway.idempotency.stage import AskedOnce

ACME, GLOBEX = OrganizationId("org_acme"), OrganizationId("org_globex")
BLUE, RED = ProjectId("proj_blue"), ProjectId("proj_red")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
JSON = (b"content-type", b"application/json")
CIPHER = ReplyCipher(b"s" * 32)


def _start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


def _body(data: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Client:
    """Takes what it is sent, or nothing after so many messages."""

    def __init__(self, *, takes: int = 1_000) -> None:
        self.takes = takes
        self.messages: list[Any] = []

    async def send(self, message: Any) -> None:
        if len(self.messages) == self.takes:
            await asyncio.Event().wait()
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


def _recorder(client: Client, *, room: int = MAX_REPLY_BYTES) -> ReplyRecorder:
    return ReplyRecorder(client.send, may_keep=lambda size: size <= room, at_end=_nothing)


async def _nothing() -> None:
    pass


async def _record(recorder: ReplyRecorder, *messages: dict[str, Any]) -> RecordedReply | None:
    for message in messages:
        await recorder.send(message)
    return recorder.reply("req_1")


async def test_a_whole_reply_is_recorded_as_it_was_sent() -> None:
    client = Client()
    reply = await _record(_recorder(client), _start(JSON, (b"x-request-id", b"1")), _body(b"{}\n\n{}", more=False))
    assert reply == RecordedReply("req_1", 200, [JSON], b"{}\n\n{}")
    assert RecordedReply.unpacked(reply.packed()) == reply
    assert client.body == reply.body


async def test_events_are_numbered_from_one() -> None:
    client = Client()
    messages = _start(EVENTS), _body(b"data: a\n\nevent: x\ndata: b\n\n"), _body(b"data: [DONE]\n\n", more=False)
    reply = await _record(_recorder(client), *messages)
    assert reply is not None
    assert reply.body == client.body == b"id: 1\ndata: a\n\nid: 2\nevent: x\ndata: b\n\nid: 3\ndata: [DONE]\n\n"
    assert reply.after(2) == b"id: 3\ndata: [DONE]\n\n"
    assert (reply.after(0), reply.after(3)) == (reply.body, b"")
    with pytest.raises(NoSuchEvent):
        reply.after(4)


@pytest.mark.parametrize("size", [MAX_REPLY_BYTES, MAX_REPLY_BYTES + 1])
async def test_a_long_reply_is_sent_and_not_recorded(size: int) -> None:
    client = Client()
    reply = await _record(_recorder(client), _start(JSON), _body(b"x" * (size - 1)), _body(b"x", more=False))
    assert len(client.body) == size
    assert (reply is None) is (size > MAX_REPLY_BYTES)


async def test_a_reply_that_there_is_no_room_for_is_sent_and_not_recorded() -> None:
    client = Client()
    assert await _record(_recorder(client, room=2), _start(JSON), _body(b"abc"), _body(b"d", more=False)) is None
    assert client.body == b"abcd"


async def test_a_reply_without_an_end_is_none() -> None:
    assert await _record(_recorder(Client()), _start(JSON), _body(b"abc")) is None


async def test_the_end_is_sent_when_what_is_to_be_done_before_it_is_done() -> None:
    client, seen = Client(), list[tuple[bytes, RecordedReply | None]]()

    async def at_end() -> None:
        seen.append((client.body, recorder.reply("req_1")))

    recorder = ReplyRecorder(client.send, may_keep=lambda _: True, at_end=at_end)
    reply = await _record(recorder, _start(JSON), _body(b"a"), _body(b"b", more=False))
    assert seen == [(b"a", reply)]
    assert client.body == b"ab"


async def test_being_cancelled_ends_it() -> None:
    task = asyncio.create_task(_record(_recorder(Client(takes=0)), _start(JSON)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("size", [3, 10 * LARGE_BYTES])
async def test_only_the_same_organization_and_key_decrypt(size: int) -> None:
    name = CIPHER.name(ACME, BLUE, "key")
    data = b"secret word " * size
    encrypted = await CIPHER.encrypt(ACME, name, data)
    assert await CIPHER.decrypt(ACME, name, encrypted) == data
    assert b"secret" not in encrypted
    assert len(encrypted) < len(data) + 64
    changed = encrypted[:-1] + bytes([encrypted[-1] ^ 1])
    others = ((GLOBEX, name, encrypted), (ACME, CIPHER.name(ACME, BLUE, "other"), encrypted), (ACME, name, changed))
    for organization, other, found in (*others, (ACME, name, b"")):
        with pytest.raises(Unreadable):
            await CIPHER.decrypt(organization, other, found)
    with pytest.raises(Unreadable):
        await ReplyCipher(b"t" * 32).decrypt(ACME, name, encrypted)


async def test_the_same_reply_is_never_sealed_alike() -> None:
    assert await CIPHER.encrypt(ACME, "name", b"x") != await CIPHER.encrypt(ACME, "name", b"x")


def test_names_and_fingerprints_tell_all_apart_and_nothing_else() -> None:
    names = {CIPHER.name(ACME, BLUE, "a"), CIPHER.name(ACME, RED, "a"), CIPHER.name(GLOBEX, BLUE, "a")}
    names |= {CIPHER.name(ACME, BLUE, "b"), ReplyCipher(b"t" * 32).name(ACME, BLUE, "a")}
    assert len(names) == 5
    assert CIPHER.name(ACME, BLUE, "a") in names
    prints = {CIPHER.fingerprint(ACME, "/v1/a", b"{}"), CIPHER.fingerprint(ACME, "/v1/b", b"{}")}
    prints |= {CIPHER.fingerprint(ACME, "/v1/a", b"{ }"), CIPHER.fingerprint(GLOBEX, "/v1/a", b"{}")}
    assert len(prints) == 4


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "ä"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        AskedOnce.read(key, None, "/v1", b"", stream=False)
    assert refused.value.param == "Idempotency-Key"


@pytest.mark.parametrize(
    ("last", "stream"), [("", True), ("-1", True), ("1.5", True), ("9" * 10, True), ("٣", True), ("1", False)]
)
def test_what_is_no_event_is_refused(last: str, stream: bool) -> None:
    with pytest.raises(InvalidRequest) as refused:
        AskedOnce.read("key", last, "/v1", b"", stream=stream)
    assert refused.value.param == "Last-Event-ID"


@pytest.mark.parametrize(("last", "after"), [(None, 0), ("0", 0), ("17", 17)])
def test_what_is_asked_for(last: str | None, after: int) -> None:
    assert AskedOnce.read("x" * 255, last, "/v1", b"b", stream=True).after == after
