"""All that touches Ray Serve's inside (pinned: 2.60): a port that must not be on the network, and a log to be kept.

Each replica opens a gRPC server for other deployments, on all interfaces, whose requests are pickles: whoever reaches
it runs code. Nothing here uses it, so it listens on the loopback interface only.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from typing import Any

from ray.serve._private import replica as serve_replica
from ray.serve._private.constants import SERVE_LOGGER_NAME

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


@contextmanager
def keep_serve_log() -> Iterator[None]:
    """Keep Serve's log in this process as it is, while something starts that configures logging, as vLLM's engine does.

    That closes all handlers there are. Serve's would then gather records for ever; and a controller that was restarted
    asks its replicas where their log is, takes the error for a failed start, and replaces every one of them.
    """
    handlers = [one for one in logging.getLogger(SERVE_LOGGER_NAME).handlers if isinstance(one, MemoryHandler)]
    targets = [one.target for one in handlers]
    yield
    for handler, target in zip(handlers, targets, strict=True):
        handler.setTarget(target)
