"""Adapters on the disk of a node, for all of its replicas: each is downloaded once, however many replicas there are.

`entries/<key>/` is whole; `filling/<key>/` is being written, or was when its process died. Either holds a lock file,
which says how many bytes it counts for. Who uses an entry, or fills one, has it locked, and the kernel unlocks it when
that process ends, however it ends. What is decided about several of them is decided under the one lock of the folder.
The folder must be on a local disk.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

_LOG = logging.getLogger(__name__)

UNUSED_S = 7 * 24 * 3600.0
"""What nobody has used for so long goes at the next filling: its adapter may have been deleted long ago."""
LOCK_FILE = ".lock"
LOCK_LIMIT_S = 10.0
_POLL_S = 0.02


class CacheFull(OSError):
    """No room: what is there is in use, or the adapter alone is over the bound."""


class HeldEntry:
    """An entry that stays on the disk until it is let go, which the end of the process does, too."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock: int | None = lock

    def release(self) -> None:
        """Let go; again does no harm."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


@dataclass(frozen=True)
class _Stored:
    path: Path
    size: int
    used_at: float


class DiskCache:
    """At most `max_bytes`, what is being filled counted whole. Calls block; any number of processes may make them.

    Every method raises TimeoutError where another process keeps the folder locked.
    """

    def __init__(self, folder: Path, max_bytes: int, now: Callable[[], float] = time.time) -> None:
        self._entries, self._filling = folder / "entries", folder / "filling"
        self._lock = folder / LOCK_FILE
        self._max_bytes = max_bytes
        self._now = now
        self.bytes = 0
        """How full it was when this process last looked."""
        self.evictions = 0
        for part in (self._entries, self._filling):
            part.mkdir(parents=True, exist_ok=True)
        self._remove_older(folder)

    def _remove_older(self, folder: Path) -> None:
        """Remove what processes of earlier versions kept, each in a folder of its number, once they are surely gone."""
        for path in folder.iterdir():
            if path.name.isdecimal() and path.stat().st_mtime < self._now() - UNUSED_S:
                shutil.rmtree(path, ignore_errors=True)

    def hold(self, key: str) -> HeldEntry | None:
        """Return the entry, from now on the most recently used, or None where there is none."""
        with self._alone():
            return self._hold(key)

    def fill(self, key: str, size: int, write: Callable[[Path], None], check: Callable[[], None]) -> HeldEntry:
        """Return the entry after `write` has put at most `size` bytes into a new folder.

        Where another process fills it already, this waits for it and writes nothing; it fills it where that one dies.
        Where `write` raises, nothing is left.

        Raises:
            CacheFull: there is no room for `size` bytes.
        """
        begun = self._begin(key, size, check)
        if isinstance(begun, HeldEntry):
            return begun
        unfinished, entry = self._filling / key, self._entries / key
        try:
            write(unfinished)
            check()
            with self._alone():
                os.rename(unfinished, entry)
                self._use(entry)
                fcntl.flock(begun, fcntl.LOCK_SH)
        except BaseException:
            with _closing(begun), self._alone():
                shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return HeldEntry(entry, begun)

    def discard(self, held: HeldEntry) -> None:
        """Delete an entry that was found damaged and let it go.

        Raises:
            BlockingIOError: another process uses it.
        """
        with self._alone():
            held.release()
            if not self._delete(held.folder):
                raise BlockingIOError(f"{held.folder.name} is damaged, and in use")

    def _begin(self, key: str, size: int, check: Callable[[], None]) -> HeldEntry | int:
        """Return the entry where it is there by now, or the lock of an empty folder in which to make it."""
        unfinished = self._filling / key
        while True:
            check()
            with self._alone():
                if (held := self._hold(key)) is not None:
                    return held
                unfinished.mkdir(exist_ok=True)
                lock = _locked(unfinished, fcntl.LOCK_EX)
                if lock is not None:
                    self._empty(unfinished, lock, size)
                    return lock
            time.sleep(_POLL_S)

    def _empty(self, unfinished: Path, lock: int, size: int) -> None:
        try:
            for left in unfinished.iterdir():  # by a process that died
                if left.name != LOCK_FILE:
                    left.unlink()
            self._make_room(size, but=unfinished)
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d" % size, 0)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            os.close(lock)
            raise

    def _make_room(self, size: int, but: Path) -> None:
        for path in self._filling.iterdir():
            if path != but:
                self._delete(path)  # unless it is being filled
        entries = sorted(_stored(self._entries), key=lambda one: one.used_at)
        held = sum(one.size for one in (*entries, *_stored(self._filling, but=but)))
        if size > self._max_bytes:
            raise CacheFull(f"{size} bytes alone are over {self._max_bytes}")
        for one in entries:
            if held + size <= self._max_bytes and one.used_at > self._now() - UNUSED_S:
                break
            if self._delete(one.path):
                held -= one.size
                self.evictions += 1
        self.bytes = held
        if held + size > self._max_bytes:
            raise CacheFull(f"{size} bytes more would be over {self._max_bytes}: {held} are in use")
        self.bytes += size

    def _hold(self, key: str) -> HeldEntry | None:
        entry = self._entries / key
        if not entry.is_dir():
            return None
        lock = _locked(entry, fcntl.LOCK_SH)
        assert lock is not None, "it is locked for one alone only while the folder is"
        self._use(entry)
        return HeldEntry(entry, lock)

    def _use(self, entry: Path) -> None:
        os.utime(entry, (self._now(), self._now()))

    def _delete(self, folder: Path) -> bool:
        """Delete a folder that nobody has locked; return whether nobody had."""
        lock = _locked(folder, fcntl.LOCK_EX)
        if lock is None:
            return False
        with _closing(lock):
            # Half an entry is none: where this process dies now, what is left counts as an unfinished one.
            doomed = self._filling / uuid4().hex
            os.rename(folder, doomed)
            shutil.rmtree(doomed)
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        with _closing(lock):
            deadline = time.monotonic() + LOCK_LIMIT_S
            while not _try_lock(lock, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process keeps {self._lock} locked")
                time.sleep(_POLL_S / 10)
            yield


def _stored(folder: Path, but: Path | None = None) -> list[_Stored]:
    found = []
    for path in folder.iterdir():
        if path != but:
            lock = path / LOCK_FILE
            said = lock.read_text() if lock.is_file() else ""
            found.append(_Stored(path, int(said or 0), path.stat().st_mtime))
    return found


def _locked(folder: Path, kind: int) -> int | None:
    """Lock a folder; None where somebody has it locked in a way that does not go with it."""
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    if _try_lock(lock, kind):
        return lock
    os.close(lock)
    return None


def _try_lock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _closing(lock: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(lock)
