"""Looks whether the platform can run here: ports, memory, disk, models. Each problem says what to do."""

import shutil
import socket
from pathlib import Path

import msgspec
import psutil

from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.base_models.server_access import server_keys
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import InvalidModelSpec, ModelTask
from tokenyard.settings import Settings
from tokenyard.stack.base_models import task_of

GB = 10**9
# Measured: Ray's own processes 1.7 GB, one chat replica with 1 GiB of KV cache 3.7 GB, one that embeds 1.7 GB, ours and
# a margin.
RAY_MEMORY_BYTES = int(1.7 * GB)
REPLICA_MEMORY_BYTES = {ModelTask.CHAT: int(3.7 * GB), ModelTask.EMBEDDING: int(1.7 * GB)}
OUR_MEMORY_BYTES = int(0.6 * GB)
NEEDED_DISK_BYTES = 2 * GB
_CGROUP = Path("/sys/fs/cgroup")


class Port(msgspec.Struct, frozen=True):
    """A port that one part of the stack will listen on; `setting` is the variable that moves it."""

    owner: str
    host: str
    number: int
    setting: str


def ports_of(settings: Settings) -> list[Port]:
    """Return every fixed port that `tokenyard up` will open with these settings."""
    ours = [
        Port("gateway", settings.host, settings.gateway_port, "TOKENYARD_GATEWAY_PORT"),
        Port("dashboard", settings.host, settings.dashboard_port, "TOKENYARD_DASHBOARD_PORT"),
        Port("worker", settings.host, settings.worker_port, "TOKENYARD_WORKER_PORT"),
    ]
    if not settings.redis_url:
        ours.append(Port("valkey", "127.0.0.1", settings.valkey_port, "TOKENYARD_VALKEY_PORT"))
    if not settings.ray_url:
        ours += [
            Port("Ray Serve's proxy", "127.0.0.1", settings.serve_port, "TOKENYARD_SERVE_PORT"),
            Port("Ray", "127.0.0.1", settings.ray_gcs_port, "TOKENYARD_RAY_GCS_PORT"),
            Port("Ray's dashboard", "127.0.0.1", settings.ray_dashboard_port, "TOKENYARD_RAY_DASHBOARD_PORT"),
        ]
    return ours


def problems_with_ports(ports: list[Port]) -> list[str]:
    """Return a sentence for each port that cannot be had."""
    problems = []
    taken: dict[int, str] = {}
    for port in ports:
        if port.number in taken:
            problems.append(f"Port {port.number} is set for both {taken[port.number]} and {port.owner}.")
        elif not _is_free(port):
            problems.append(
                f"Port {port.number}, wanted for {port.owner}, is in use{_user_of(port.number)}."
                f" Stop that, or choose another port with {port.setting}."
            )
        taken[port.number] = port.owner
    return problems


def problems_with_memory(settings: Settings) -> list[str]:
    """Return a sentence where less memory is free than the stack is known to take."""
    needed, models = OUR_MEMORY_BYTES, [model for model in settings.models if _has_replicas(settings, model)]
    if not settings.ray_url:
        needed += RAY_MEMORY_BYTES + sum(REPLICA_MEMORY_BYTES[task_of(settings, model)] for model in models)
    free = available_memory()
    if free >= needed:
        return []
    return [
        f"{free / GB:.1f} GB of memory are free, and {len(models)} model(s) with everything around need"
        f" {needed / GB:.1f} GB. Close other programs, or serve fewer models with TOKENYARD_MODELS."
    ]


def problems_with_disk(data_dir: Path) -> list[str]:
    """Return a sentence where the data folder's disk is nearly full."""
    free = shutil.disk_usage(existing(data_dir)).free
    if free >= NEEDED_DISK_BYTES:
        return []
    return [
        f"{free / GB:.1f} GB of disk are free under {data_dir}, and {NEEDED_DISK_BYTES / GB:.0f} GB are needed."
        " Free some, or choose another folder with TOKENYARD_DATA_DIR."
    ]


def problems_with_models(settings: Settings) -> list[str]:
    """Return a sentence for each configured model that has no description, or whose folder is not whole."""
    problems = []
    for model in settings.models:
        if not (settings.models_dir / f"{model}.yaml").exists():
            problems.append(f"TOKENYARD_MODELS names {model}, and {settings.models_dir} has no {model}.yaml.")
        folder = settings.effective_models_path / model
        if folder.exists() and not (folder / "config.json").exists():
            problems.append(f"{folder} is not a complete model. Remove it and run `tokenyard models pull {model}`.")
    return problems or _problems_between_models(settings)


def _problems_between_models(settings: Settings) -> list[str]:
    try:
        models = BaseModels.load(settings.models, settings.models_dir, settings.effective_models_path)
        server_keys(models.all(), settings.server_keys, settings.plain_http_servers)
    except InvalidModelSpec as error:
        return [f"The models of TOKENYARD_MODELS cannot be served: {error}."]
    return []


def _has_replicas(settings: Settings, model: str) -> bool:
    try:
        return read_model_spec((settings.models_dir / f"{model}.yaml").read_bytes()).server is None
    except (OSError, InvalidModelSpec):  # said by `problems_with_models`
        return True


def available_memory() -> int:
    """Return the bytes that can still be taken: of the machine, or of the container where that is less."""
    available = int(psutil.virtual_memory().available)
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    return available if limit is None or used is None else min(available, max(0, limit - used))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no container, or "max"
        return None


def existing(folder: Path) -> Path:
    """Return the folder itself, or the nearest parent that is there."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _is_free(port: Port) -> bool:
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host, port.number))
        except OSError:
            return False
    return True


def _user_of(number: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens_here = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (number,)
            if listens_here and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:  # other users' processes are not shown to everybody
        return ""
    return ""
