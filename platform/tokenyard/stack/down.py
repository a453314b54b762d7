"""`tokenyard down`: asks a running copy to stop, or ends what a dead one left behind."""

import os
import signal
import time

import psutil

from tokenyard.settings import Settings
from tokenyard.stack.failure import StackFailed
from tokenyard.stack.leftovers import end_processes
from tokenyard.stack.run_record import holder, read_record, remove_record

STOP_LIMIT_S = 25.0
POLL_S = 0.1


def down(settings: Settings) -> str:
    """Stop what runs on the data folder; return what was done.

    Raises:
        StackFailed: the running copy does not stop.
    """
    pid = holder(settings.data_dir)
    if pid:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_LIMIT_S
        while holder(settings.data_dir) == pid and psutil.pid_exists(pid):
            if time.monotonic() > deadline:
                raise StackFailed(f"Process {pid} did not stop within {STOP_LIMIT_S:.0f} s; see its terminal or logs.")
            time.sleep(POLL_S)
        return f"Stopped (process {pid})."
    record = read_record(settings.data_dir)
    if record is None:
        return f"Nothing runs on {settings.data_dir}."
    ended = end_processes(record.id, grace_s=3.0)
    remove_record(settings.data_dir)
    return f"Ended {ended} processes that a run which died had left."
