"""The local Ray: one head node that listens on 127.0.0.1 only, with its token authentication on."""

import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tokenyard.settings import Settings
from tokenyard.stack.installation import SECRET_VARIABLE, StackFailed, local_url
from tokenyard.stack.processes.child import Part
from tokenyard.stack.processes.probes import Probe, answers_http
from tokenyard.stack.serving import installed_kind
from tokenyard_deployments.serving.app import node_resource, serve_environment
from tokenyard_deployments.serving.replica_settings import METER_SECRET, REPLICA_BEARER, REPLICA_DIR

# Logical CPUs, so that replicas and training are placed by declaration, whatever the machine has.
LOGICAL_CPUS = 16
NODE_PLACES = 1000
OBJECT_STORE_BYTES = 256 * 1024 * 1024
READY_LIMIT_S = 180.0
STOP_GRACE_S = 6.0
KEPT_SESSIONS = 2
_NOT_FOR_RAY = (SECRET_VARIABLE, "TOKENYARD_DATABASE_URL", "TOKENYARD_ADMIN_KEY", "TOKENYARD_SERVER_KEYS")


def ray_part(settings: Settings, environment: Mapping[str, str]) -> Part:
    """Return Ray's head node as a part of the stack."""
    agent_port, client_port = _free_ports(2)
    argv = (
        *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address", "127.0.0.1", "--port", str(settings.ray_gcs_port)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(settings.ray_dashboard_port)),
        *("--dashboard-agent-listen-port", str(agent_port), "--ray-client-server-port", str(client_port)),
        # Any free ports: Ray's usual range would take in ports that the operator chose for something else.
        *("--min-worker-port", "0", "--max-worker-port", "0"),
        *("--num-cpus", str(LOGICAL_CPUS), "--object-store-memory", str(OBJECT_STORE_BYTES)),
        *("--resources", json.dumps({node_resource(installed_kind()): NODE_PLACES})),
        *("--temp-dir", str(session_folder(settings.data_dir) / "r")),
    )
    return Part(
        name="ray",
        argv=argv,
        environment={**_without_secrets(environment), **ray_environment(settings)},
        probe=_dashboard(settings),
        ready_limit_s=READY_LIMIT_S,
        stop_grace_s=STOP_GRACE_S,
        restarts=2,
        has_descendants=True,
    )


def ray_environment(settings: Settings) -> dict[str, str]:
    """Return Ray's own variables and the replicas'; jobs and replicas inherit them."""
    return {
        **serve_environment(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(settings.ray_token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Despite its name: 0 makes Ray keep 127.0.0.1 as its node's address instead of a public one.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # Else process titles overwrite the environment by which the run's processes are found.
        "SPT_NOENV": "1",
        # Where `tokenyard-train`, run as a Ray job, finds the API.
        "TOKENYARD_URL": local_url(settings, settings.gateway_port),
        METER_SECRET: settings.derived_secret("meter").hex(),
        REPLICA_BEARER: settings.derived_secret("replica-bearer").hex(),
        REPLICA_DIR: str(settings.data_dir.absolute() / "replicas"),
    }


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Replicas and training need neither the master secret nor SQL."""
    return {name: value for name, value in environment.items() if name not in _NOT_FOR_RAY}


def session_folder(data_dir: Path) -> Path:
    """Return our folder around Ray's own, in which it keeps sockets and logs; Ray lets everybody into its own.

    The path is short, because those of sockets may have 107 bytes.
    """
    name = hashlib.sha256(str(data_dir.absolute()).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"tokenyard-{os.getuid()}-{name}"


def prepare_session_folder(data_dir: Path) -> None:
    """Make the folder for this user alone, and remove what old sessions left in it but for the newest.

    Raises:
        StackFailed: the folder belongs to somebody else, who could swap Ray's sockets.
    """
    folder = session_folder(data_dir)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise StackFailed(f"{folder} belongs to another user. Remove it, or choose another place with TMPDIR.")
    folder.chmod(0o700)
    sessions = sorted(entry for entry in folder.glob("r/session_2*") if not entry.is_symlink())
    for old in sessions[:-KEPT_SESSIONS]:
        shutil.rmtree(old)


def bearer_of(settings: Settings) -> dict[str, str]:
    """Return the header that Ray's dashboard wants."""
    return {"Authorization": f"Bearer {settings.ray_token_file.read_text().strip()}"}


def _dashboard(settings: Settings) -> Probe:
    async def ask() -> str | None:
        return await answers_http(f"{settings.effective_ray_url}/api/version", bearer_of(settings))()

    return ask


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
