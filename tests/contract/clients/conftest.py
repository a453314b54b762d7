"""A running gateway with one mock model server, and other people's clients in processes of their own."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from support.fakes.gateway_ports import BASE
from support.gateway_fixture import gateway, pytest_asyncio_loop_factories
from support.gateway_stack import KEY, GatewayStack

__all__ = ["gateway", "pytest_asyncio_loop_factories"]

PROGRAMS = Path(__file__).parent / "programs"
INSTALLED = Path(os.environ.get("TOKENYARD_TEST_CLIENTS") or Path(__file__).parents[3] / "build" / "clients")
TIMEOUT_S = 120.0

Run = Callable[..., Coroutine[None, None, str]]
RunProgram = Callable[[str], Coroutine[None, None, dict[str, Any]]]


@pytest.fixture
def run(gateway: GatewayStack, tmp_path: Path) -> Run:
    """Return what runs a command beside the gateway, told by its environment where that is, and gives its output."""

    async def run(*command: str | Path, given: bytes = b"", folder: Path = tmp_path) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "BASE_URL": f"{gateway.url}/v1",
            "API_KEY": KEY,
            "MODEL": BASE.id,
        }
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, cwd=folder
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                out, errors = await process.communicate(given)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, errors.decode()
        return out.decode()

    return run


@pytest.fixture
def run_program(run: Run) -> RunProgram:
    """Return what runs one of `programs` in the environment of its language, and gives the JSON it wrote."""

    async def run_program(name: str) -> dict[str, Any]:
        program = PROGRAMS / name
        if program.suffix == ".mjs":
            # From standard input a module finds its packages in the working folder.
            node = (installed("node/bin/node"), "--input-type=module")
            out = await run(*node, given=program.read_bytes(), folder=INSTALLED / "node")
        else:
            out = await run(installed("python/bin/python"), program)
        told: dict[str, Any] = json.loads(out.splitlines()[-1])
        return told

    return run_program


def installed(path: str) -> Path:
    """Return the place of what `make clients` has installed."""
    found = INSTALLED / path
    assert found.exists(), f"{found} is missing: `make clients` installs the clients"
    return found
