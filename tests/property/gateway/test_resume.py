"""Wherever a stream breaks, what was received and what is sent again are the whole: no event twice, none missing."""

import asyncio
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenyard.gateway.idempotency.recording import RecordedReply, ReplyRecorder

EVENT = st.builds(
    lambda name, data: name + b"data: " + data.encode() + b"\n\n",
    st.sampled_from([b"", b"event: delta\n", b": keep-alive\n"]),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20),
)
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


async def _recorded(pieces: list[list[bytes]]) -> tuple[bytes, RecordedReply | None]:
    received: list[bytes] = []

    async def send(message: Any) -> None:
        received.append(message.get("body", b""))

    async def nothing() -> None:
        pass

    recorder = ReplyRecorder(send, may_keep=lambda _size: True, at_end=nothing)
    await recorder.send(START)
    for at, events in enumerate(pieces, 1):
        more = at < len(pieces)
        await recorder.send({"type": "http.response.body", "body": b"".join(events), "more_body": more})
    return b"".join(received), recorder.reply("req_1")


@settings(deadline=None)
@given(st.lists(st.lists(EVENT, max_size=4), min_size=1, max_size=6), st.data())
def test_received_and_replayed_are_the_whole(pieces: list[list[bytes]], data: st.DataObject) -> None:
    whole, reply = asyncio.run(_recorded(pieces))
    assert reply is not None
    assert reply.body == whole
    assert re.sub(rb"(?m)^id: \d+\n", b"", whole) == b"".join(b"".join(events) for events in pieces)
    received = whole[: data.draw(st.integers(0, len(whole)))]
    kept = received[: received.rfind(b"\n\n") + 2] if b"\n\n" in received else b""
    ids = [int(number) for number in re.findall(rb"(?m)^id: (\d+)$", kept)]
    assert ids == list(range(1, len(ids) + 1))
    assert kept + reply.after(len(ids)) == whole
