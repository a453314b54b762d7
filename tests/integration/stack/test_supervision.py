"""A stack of dummy parts in a real process: deaths, restarts, Ctrl-C, second copies, taken ports, leftovers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from support.servers.free_ports import free_ports
from tokenyard.settings import Settings
from tokenyard.stack.processes.leftovers import processes_of
from tokenyard.stack.processes.run_record import read_record
from tokenyard.stack.up import down

RUNNER = Path(__file__).with_name("dummy_stack.py")
LIMIT_S = 30.0


class Stack:
    """One started runner."""

    def __init__(self, data_dir: Path, *kinds: str, **extra: str) -> None:
        self.data_dir = data_dir
        self.output = data_dir.parent / f"output-{time.monotonic_ns()}"
        ports = dict(zip(("GATEWAY", "DASHBOARD", "WORKER"), free_ports(3), strict=True))
        environment = {
            **os.environ,
            "TOKENYARD_DATA_DIR": str(data_dir),
            **{f"TOKENYARD_{name}_PORT": str(port) for name, port in ports.items()},
            **extra,
        }
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(RUNNER), *kinds], env=environment, stdout=output, stderr=output
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def run(self) -> str:
        record = read_record(self.data_dir)
        assert record is not None
        return record.id

    def until_said(self, text: str) -> None:
        until(lambda: text in self.said or self.process.poll() is not None, lambda: self.said)
        assert text in self.said, self.said

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT_S)
        down(settings_of(self.data_dir))


def settings_of(data_dir: Path) -> Settings:
    return Settings(data_dir=data_dir)


def until(condition: Callable[[], bool], report: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, report()
        time.sleep(0.02)


StartStack = Callable[..., Stack]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartStack]:
    started: list[Stack] = []

    def starter(*kinds: str, **extra: str) -> Stack:
        started.append(Stack(tmp_path / "data", *kinds, **extra))
        return started[-1]

    yield starter
    for stack in started:
        stack.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_it_started_and_nothing_else(start: StartStack, number: signal.Signals) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        stack = start("steady", "family", "deaf")
        stack.until_said("Ready in")
        run = stack.run
        until(lambda: len(processes_of(run)) == 4)
        stack.process.send_signal(number)
        assert stack.process.wait(20) == 0, stack.said
        assert processes_of(run) == []
        assert read_record(stack.data_dir) is None
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_dead_part_is_said_and_started_again(start: StartStack) -> None:
    stack = start("steady", "family")
    stack.until_said("Ready in")
    run = stack.run
    until(lambda: len(processes_of(run, "family")) == 2)
    before = {process.pid for process in processes_of(run, "family")}
    leader = next(process for process in processes_of(run, "family") if process.ppid() == stack.process.pid)
    leader.kill()
    stack.until_said("family was ended by SIGKILL; starting it again")
    stack.until_said("hook ran")
    until(lambda: len(processes_of(run, "family")) == 2)
    after = {process.pid for process in processes_of(run, "family")}
    assert not before & after, "what the dead one had started went before the new one came"


def test_a_part_that_cannot_be_kept_alive_ends_the_stack_with_its_reason(start: StartStack) -> None:
    stack = start("steady", "crasher")
    assert stack.process.wait(LIMIT_S) == 1
    assert "crasher ended with status 3; starting it again in 0.5 s (1 of 2)" in stack.said
    assert "crasher ended with status 3. Its log is" in stack.said
    assert "the crasher is out of luck" in stack.said
    assert read_record(stack.data_dir) is None


def test_a_second_copy_is_refused_with_the_first_ones_process_id(start: StartStack) -> None:
    first = start("steady")
    first.until_said("Ready in")
    second = start("steady")
    assert second.process.wait(LIMIT_S) == 1
    assert f"already runs on {first.data_dir} (process {first.process.pid})" in second.said
    assert "tokenyard down" in second.said
    assert first.process.poll() is None


def test_a_port_in_use_is_named_with_its_user_and_the_setting(start: StartStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = start("steady", TOKENYARD_GATEWAY_PORT=str(port))
        assert stack.process.wait(LIMIT_S) == 1
    assert f"Port {port}, wanted for gateway, is in use by" in stack.said
    assert f"(process {os.getpid()})" in stack.said
    assert "TOKENYARD_GATEWAY_PORT" in stack.said


def test_the_next_start_ends_what_a_killed_run_left(start: StartStack) -> None:
    killed = start("steady", "family")
    killed.until_said("Ready in")
    run = killed.run
    until(lambda: len(processes_of(run)) == 3)
    killed.process.kill()
    killed.process.wait(LIMIT_S)
    assert len(processes_of(run)) == 3
    following = start("steady")
    following.until_said("Ready in")
    assert f"Ended 3 processes that a run which died (process {killed.process.pid}) had left" in following.said
    assert processes_of(run) == []
    assert len(processes_of(following.run)) == 1


def test_down_stops_a_running_copy_and_a_dead_ones_leftovers(start: StartStack) -> None:
    stack = start("steady")
    stack.until_said("Ready in")
    assert down(settings_of(stack.data_dir)) == f"Stopped (process {stack.process.pid})."
    assert stack.process.wait(LIMIT_S) == 0

    killed = start("family")
    killed.until_said("Ready in")
    run = killed.run
    until(lambda: len(processes_of(run)) == 2)
    killed.process.kill()
    killed.process.wait(LIMIT_S)
    assert "Ended 2 processes" in down(settings_of(stack.data_dir))
    assert processes_of(run) == []
    assert "Nothing runs" in down(settings_of(stack.data_dir))


def test_the_parts_do_not_get_the_terminals_signals(start: StartStack) -> None:
    stack = start("steady")
    stack.until_said("Ready in")
    child = processes_of(stack.run)[0]
    assert os.getsid(child.pid) == child.pid
    assert psutil.Process(child.pid).environ()["TOKENYARD_PART"] == "steady"
