"""What the operator reads."""

import io
import time

from tokenyard.stack.progress import Progress


def test_without_a_terminal_lines_are_plain_and_long_steps_are_seen_to_move() -> None:
    stream = io.StringIO()
    progress = Progress(stream, heartbeat_s=0.01)
    with progress.step("Ray") as step:
        step.show("head [1/2]")
        wait_for(stream, "head")
    progress.warn("gateway ended with status 1")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Ray ..."
    assert lines[1] == "  Ray: head [1/2] (0 s)"
    assert lines[-2:] == ["Ray: done in 0 s", "gateway ended with status 1"]
    assert "\x1b" not in stream.getvalue()


def test_steps_that_go_on_together_are_shown_together_until_each_ends() -> None:
    stream = io.StringIO()
    progress = Progress(stream, heartbeat_s=0.01)
    with progress.step("Replicas"):
        with progress.step("Ray"):
            wait_for(stream, "  Replicas (0 s), Ray (0 s)\n")
        wait_for(stream, "Ray: done in 0 s\n  Replicas (0 s)\n")
    ended = stream.getvalue()
    time.sleep(0.05)
    assert stream.getvalue() == ended
    assert ended.endswith("Replicas: done in 0 s\n")


def wait_for(stream: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 5
    while text not in stream.getvalue():
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.01)
