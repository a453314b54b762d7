"""Labels stay bounded, and the log line buffer does too."""

import orjson

from tokenyard.web.access_log import MAX_WAITING_LINES, AccessLog
from tokenyard.web.metrics import BoundedLabel


def test_later_values_are_other() -> None:
    label = BoundedLabel(2)
    assert [label(value) for value in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]


def test_the_access_log_writes_at_its_bound() -> None:
    written: list[bytes] = []
    log = AccessLog(written.append)
    for number in range(MAX_WAITING_LINES):
        assert not written
        log.add({"n": number})
    lines = b"".join(written).splitlines()
    assert [orjson.loads(line)["n"] for line in lines] == list(range(MAX_WAITING_LINES))


async def test_the_access_log_writes_what_waits_at_the_end() -> None:
    written: list[bytes] = []
    async with AccessLog(written.append) as log:
        log.add({"n": 1})
    assert written == [b'{"n":1}\n']
