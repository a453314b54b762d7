"""Labels stay bounded, and the log line buffer does too."""

import asyncio
import threading

import orjson
import pytest

from tokenyard.web.access_log import MAX_WAITING_LINES, AccessLog
from tokenyard.web.metrics import BoundedLabel


def test_later_values_are_other() -> None:
    label = BoundedLabel(2)
    assert [label(value) for value in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]


async def test_a_reader_of_the_access_log_that_is_slow_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tokenyard.web.access_log.FLUSH_INTERVAL_S", 0.001)
    written: list[bytes] = []
    begun, reads = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def write(lines: bytes) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert reads.wait(20)
        written.append(lines)

    async with AccessLog(write) as log:
        log.add({"n": 0})
        async with asyncio.timeout(20):
            await begun.wait()
            for number in range(1, MAX_WAITING_LINES + 11):
                log.add({"n": number})
            assert not written
            reads.set()
            while len(written) < 2:  # noqa: ASYNC110 - a thread writes
                await asyncio.sleep(0.001)
    lines = b"".join(written).splitlines()
    assert [orjson.loads(line)["n"] for line in lines] == list(range(MAX_WAITING_LINES + 1))
    assert "10 lines of the access log were lost" in caplog.text


async def test_the_access_log_writes_what_waits_at_the_end() -> None:
    written: list[bytes] = []
    async with AccessLog(written.append) as log:
        log.add({"n": 1})
    assert written == [b'{"n":1}\n']
