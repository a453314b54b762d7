"""Runs an attack beside whatever its caller does meanwhile."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.attacks.http_attack import AttackReport

TESTS = Path(__file__).parents[2]
END_LIMIT_S = 60.0


@contextmanager
def attacking(url: str, attack: str, key: str, *, core: int | None = None) -> Iterator[AttackReport]:
    """Attack for as long as the context lasts; the report is complete when it is over.

    On a `core` the attacker runs only when nobody else wants it: else it would starve who measures beside it.
    """

    report = AttackReport()
    with subprocess.Popen(
        [sys.executable, "-m", "support.attacks.attacker", url, attack, key],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
                os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
            assert process.stdout.readline() == b"begun\n", "the attack did not begin"
            yield report
            process.stdin.close()
            for name, found in json.loads(process.stdout.read()).items():
                setattr(report, name, found)
        finally:
            process.terminate()
            process.wait(END_LIMIT_S)
