"""How fair, told to the engine's process with its config."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_KEY = "tokenyard_fairness"


@dataclass(frozen=True, slots=True)
class FairnessSettings:
    """`quantum` is how far, in tokens of service, a sequence may pass a less served organization's for its prefix.

    `reserved_slots` are free for organizations that have nothing running.
    """

    quantum: float
    reserved_slots: int

    @classmethod
    def of(cls, additional_config: Any) -> "FairnessSettings":
        """Read vLLM's `additional_config`; without ours in it this raises `KeyError`."""
        assert isinstance(additional_config, Mapping)
        return cls(**additional_config[_KEY])

    @property
    def additional_config(self) -> dict[str, object]:
        return {_KEY: asdict(self)}
