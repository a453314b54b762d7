"""Asks Ray and vLLM, in a process of their own, what they would say of a model's file."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tokenyard.stack.installation import StackFailed
from tokenyard_deployments.serving.model_check import CheckedModel

CHECK_TIMEOUT_S = 300.0


class _Said(msgspec.Struct):
    found: CheckedModel | None = None
    error: str | None = None


async def check_model(file: Path, kind: str, folder: Path | None, environment: Mapping[str, str]) -> CheckedModel:
    """Check one accelerator of the model in `file`; vLLM looks at its own files, too, where they are in `folder`.

    Raises:
        StackFailed: it cannot be served so.
    """
    looked_at = ("--folder", str(folder)) if folder else ()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tokenyard_deployments.serving.model_check", str(file), kind, *looked_at),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
    )
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            output, complaints = await process.communicate()
    except TimeoutError:
        raise StackFailed(f"Ray and vLLM did not answer for {kind} within {CHECK_TIMEOUT_S:.0f} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = _read(output)
    if said.found is not None:
        return said.found
    reason = said.error or complaints.decode(errors="replace").strip()[-500:]
    raise StackFailed(f"{file} is no model that runs on {kind}: {reason}")


def _read(output: bytes) -> _Said:
    for line in reversed(output.splitlines()):
        try:
            return msgspec.json.decode(line, type=_Said)
        except msgspec.MsgspecError:  # a library's own words
            continue
    return _Said()
