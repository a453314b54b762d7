"""All that touches Ray Serve's inside (pinned: 2.60): a port of every replica that must not be on the network.

Each replica opens a gRPC server for other deployments, on all interfaces, whose requests are pickles: whoever reaches
it runs code. Nothing here uses it, so it listens on the loopback interface only.
"""

from typing import Any

from ray.serve._private import replica as serve_replica

EVERYWHERE = "[::]:0"
LOOPBACK = "127.0.0.1:0"
_NAME = "add_port_to_grpc_server"


class RayServeChanged(Exception):
    """Ray Serve is not as this module knows it."""


def keep_grpc_on_loopback() -> None:
    """Make the replica of this process open its gRPC server on loopback. Call it before the replica is initialized.

    Raises:
        RayServeChanged: this version of Ray opens it in another way.
    """
    original = getattr(serve_replica, _NAME, None)
    if original is None:
        raise RayServeChanged(f"ray.serve._private.replica has no {_NAME}")
    if getattr(original, "on_loopback", False):
        return

    def add_port(server: Any, address: str) -> int:
        if address != EVERYWHERE:
            raise RayServeChanged(f"a replica's gRPC server was expected on {EVERYWHERE}, not on {address}")
        return int(original(server, LOOPBACK))

    add_port.on_loopback = True  # type: ignore[attr-defined]
    setattr(serve_replica, _NAME, add_port)
