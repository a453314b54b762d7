"""Lets Schemathesis make up requests of a served description, and tells what came of them."""

import asyncio
import base64
import json
import os
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROGRAMS = Path(__file__).parents[2] / "contract" / "clients" / "programs"
RULES, HOOKS = PROGRAMS / "schemathesis.toml", PROGRAMS / "schemathesis_hooks.py"
LIMIT_S = 1_500.0
PASSED, FAILED = 0, 1


@dataclass(frozen=True)
class Exchange:
    """A request that was sent, and its answer; the names of headers have lower case."""

    operation: str  # what it was made up for; the method that was sent may be another
    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def request(self) -> str:
        """The id that the gateway gave the request."""
        return self.headers["x-request-id"]

    def __str__(self) -> str:
        return f"{self.method} {self.path}: {self.status} {self.body[:300]!r}"


@dataclass(frozen=True)
class Generated:
    """What was sent, and what Schemathesis says of the answers: "" where it found nothing."""

    exchanges: Sequence[Exchange]
    findings: str


async def generate(
    python: Path, folder: Path, url: str, *options: str, cases: int, seed: int, tenant_key: str, operator_key: str
) -> Generated:
    """Send at most so many made-up cases to each operation; `python` is one that has Schemathesis.

    Raises:
        AssertionError: it did not come to its end.
    """
    exchanges = folder / "exchanges"
    command = [
        *(str(python), "-m", "schemathesis.cli", "--config-file", str(RULES), "run", f"{url}/openapi.json"),
        *("--max-examples", str(cases), "--seed", str(seed), "--no-color", *options),
    ]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SCHEMATHESIS_HOOKS": str(HOOKS),
        "EXCHANGES": str(exchanges),
        "TENANT_KEY": tenant_key,
        "OPERATOR_KEY": operator_key,
    }
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, env=environment, cwd=folder)
    try:
        async with asyncio.timeout(LIMIT_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    told = out.decode()
    assert process.returncode in (PASSED, FAILED), told
    noted = [_exchange(json.loads(line)) for line in exchanges.read_text().splitlines()]
    return Generated(noted, told if process.returncode == FAILED else "")


def _exchange(noted: dict[str, Any]) -> Exchange:
    return Exchange(
        operation=noted["operation"],
        method=noted["method"],
        path=urlsplit(noted["url"]).path,
        status=noted["status"],
        headers=noted["headers"],
        body=base64.b64decode(noted["body"]),
    )
