"""Runs `tokenyard.stack.up` over dummy parts: `python dummy_stack.py <part kind>...`; settings from the environment."""

import asyncio
import os
import sys
from collections.abc import Mapping

from tokenyard.settings import Settings
from tokenyard.stack.installation import StackFailed
from tokenyard.stack.processes.child import Part
from tokenyard.stack.processes.supervisor import Supervisor
from tokenyard.stack.progress import Progress
from tokenyard.stack.up import up

SCRIPTS = {
    "steady": "import time; time.sleep(600)",
    "deaf": "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);"
    "time.sleep(600)",
    "crasher": "import sys; print('the crasher is out of luck'); sys.exit(3)",
    # Its child has a session of its own, as Ray's workers may.
    "family": "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
    "print('born', flush=True); time.sleep(600)",
}


async def start(_settings: Settings, environment: Mapping[str, str], supervisor: Supervisor, progress: Progress) -> str:
    async def ready() -> str | None:
        return None

    async def announce() -> None:
        progress.say("hook ran")

    for kind in sys.argv[1:]:
        part = Part(
            name=kind,
            argv=(sys.executable, "-c", SCRIPTS[kind]),
            environment=environment,
            probe=ready,
            stop_grace_s=0.5,
            restarts=2,
            has_descendants=kind == "family",
        )
        await supervisor.start(part, after_restart=announce)
        await supervisor.ready(kind)
    return "welcome"


def main() -> int:
    settings = Settings(redis_url="redis://127.0.0.1:1/0", ray_url="http://127.0.0.1:1")
    try:
        asyncio.run(up(settings, Progress(), ignore_checks=os.environ.get("STRICT") is None, start=start))
    except StackFailed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
