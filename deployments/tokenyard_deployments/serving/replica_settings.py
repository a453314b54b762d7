"""What a replica is told by its environment. Secrets come this way only: never in Serve's config, never in a log."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

METER_SECRET = "TOKENYARD_METER_SECRET"  # noqa: S105 - the variable's name
REPLICA_BEARER = "TOKENYARD_REPLICA_BEARER"
REDIS_URL = "TOKENYARD_REDIS_URL"
BLOB_URL = "TOKENYARD_BLOB_URL"
REPLICA_DIR = "TOKENYARD_REPLICA_DIR"
ADAPTER_DISK_BYTES = "TOKENYARD_ADAPTER_DISK_BYTES"

_MIN_SECRET_BYTES = 16
_ADAPTER_DISK_BYTES = 20 << 30


class ReplicaMisconfigured(Exception):
    """The environment does not say what a replica needs; the message names the variable."""


@dataclass(frozen=True)
class ReplicaSettings:
    """`meter_secret` and `bearer` are `derived_secret("meter")` and `derived_secret("replica-bearer")`.

    `directory` is on a local disk: it holds adapters, usage reports that Redis has not taken yet, and what vLLM keeps
    from one start to the next. The replicas of a node share it; adapters take at most `adapter_disk_bytes` of it.
    """

    meter_secret: bytes = field(repr=False)
    bearer: bytes = field(repr=False)
    redis_url: str = field(repr=False)
    blob_url: str
    directory: Path
    adapter_disk_bytes: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ReplicaSettings":
        """Read the settings; a variable that is missing or malformed raises `ReplicaMisconfigured`."""
        directory = environment.get(REPLICA_DIR) or str(Path(tempfile.gettempdir(), "tokenyard-replicas"))
        return cls(
            meter_secret=_secret(environment, METER_SECRET),
            bearer=_secret(environment, REPLICA_BEARER),
            redis_url=_required(environment, REDIS_URL),
            blob_url=_required(environment, BLOB_URL),
            directory=Path(directory),
            adapter_disk_bytes=_bytes(environment, ADAPTER_DISK_BYTES, _ADAPTER_DISK_BYTES),
        )

    @property
    def caches(self) -> dict[str, str]:
        """The variables that tell vLLM, torch, Triton and numba where to keep what they compiled and found out."""
        root = self.directory / "cache"
        names = {
            "VLLM_CACHE_ROOT": "vllm",
            "TORCHINDUCTOR_CACHE_DIR": "torch",
            "TRITON_CACHE_DIR": "triton",
            "NUMBA_CACHE_DIR": "numba",
        }
        return {name: str(root / folder) for name, folder in names.items()}


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise ReplicaMisconfigured(f"{name} must be set in the environment of every Ray node")
    return value


def _secret(environment: Mapping[str, str], name: str) -> bytes:
    try:
        secret = bytes.fromhex(_required(environment, name))
    except ValueError:
        raise ReplicaMisconfigured(f"{name} must be hexadecimal") from None
    if len(secret) < _MIN_SECRET_BYTES:
        raise ReplicaMisconfigured(f"{name} must hold at least {_MIN_SECRET_BYTES} bytes")
    return secret


def _bytes(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isdecimal():
        raise ReplicaMisconfigured(f"{name} must be a number of bytes")
    return int(value)
