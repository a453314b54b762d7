"""A real S3 server on a local folder, for as long as a test needs it."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.servers.free_ports import free_port

ACCESS_KEY, SECRET_KEY = "AK1234567890", "SK12345678901234567890"  # the server refuses shorter ones
BUCKET = "tokenyard"
START_LIMIT_S = 20.0


@contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """Serve `folder`; yield the environment that leads S3 clients to it, with an empty bucket.

    Raises:
        RuntimeError: it ended, or did not answer in time.
    """
    (folder / BUCKET).mkdir(parents=True)
    port = free_port()
    command = [str(Path(sys.executable).parent / "rclone"), "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", "/dev/null", "--vfs-cache-mode", "off"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_up(server, port)
        yield {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
            return
        except urllib.error.HTTPError as error:
            error.close()  # it is up, and wants a signature
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the S3 server did not start")
