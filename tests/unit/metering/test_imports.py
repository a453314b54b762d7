"""What a replica and a training job import of ours brings no database and no web framework with it."""

import subprocess
import sys

CODE = """
import sys
for name in ("sqlalchemy", "fastapi", "pydantic"):
    sys.modules[name] = None
import tokenyard.metering.header, tokenyard.metering.stream, tokenyard_deployments.serving.reporter
"""


def test_metering_stands_on_redis_alone() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
