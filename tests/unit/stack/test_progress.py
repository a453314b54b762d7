"""What the operator reads."""

import io
import time

from tokenyard.stack.progress import Progress


def test_without_a_terminal_lines_are_plain_and_long_steps_are_seen_to_move() -> None:
    stream = io.StringIO()
    progress = Progress(stream, heartbeat_s=0.01)
    with progress.step("Ray") as step:
        step.show("head [1/2]")
        deadline = time.monotonic() + 5
        while "head" not in stream.getvalue():
            assert time.monotonic() < deadline
    progress.warn("gateway ended with status 1")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Ray ..."
    assert lines[1] == "  Ray: head [1/2] (0 s)"
    assert lines[-2:] == ["Ray: done in 0 s", "gateway ended with status 1"]
    assert "\x1b" not in stream.getvalue()
