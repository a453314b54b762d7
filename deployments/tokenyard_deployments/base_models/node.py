"""A replica's model on its node's disk: where it is not there yet, the first of the node's replicas fetches it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenyard.core.model_files.reading import write_model_spec
from tokenyard.core.models import ModelSpec
from tokenyard_deployments.base_models.failures import FetchFailed
from tokenyard_deployments.base_models.pinned import check_content

FETCH_TIMEOUT_S = 7200.0


def bring_to_node(spec: ModelSpec, folder: Path) -> None:
    """Fetch the described model into `folder` unless something stands there, and check that it is the pinned one.

    Raises:
        FetchFailed: it cannot be had here.
        BrokenModel: another model stands there.
    """
    if folder.exists():
        return check_content(folder, spec.content_hash)
    # By a process of its own: clients of hubs, and what converts models, do not stay in one that serves, offline.
    with tempfile.NamedTemporaryFile(suffix=".yaml") as description:
        description.write(write_model_spec(spec))
        description.flush()
        module = "tokenyard_deployments.base_models.fetch"
        command = [sys.executable, "-m", module, "pull", description.name, "--into", str(folder)]
        try:
            fetched = subprocess.run(  # noqa: S603 - our own module
                command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False, env=_online()
            )
        except subprocess.TimeoutExpired as error:
            raise FetchFailed(f"{spec.id} did not arrive within {FETCH_TIMEOUT_S:.0f} s") from error
    if fetched.returncode:
        raise FetchFailed(f"{spec.id} is not on this node, in {folder}, and cannot be had: {_reason(fetched)}")


def _online() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}


def _reason(fetched: "subprocess.CompletedProcess[str]") -> str:
    lines = fetched.stdout.splitlines() or fetched.stderr.splitlines()
    last = lines[-1] if lines else f"the fetcher ended with status {fetched.returncode}"
    try:
        return str(json.loads(last)["error"])
    except (ValueError, KeyError, TypeError):
        return last
