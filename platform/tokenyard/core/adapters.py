"""Adapters: how they are named and found, and what one may be. The only place that says so."""

import re
from collections.abc import Mapping

import msgspec

from tokenyard.core.ids import AdapterId

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The bounds of a rank that vLLM can be started with."""

_SUFFIX = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNSUPPORTED = ("use_dora", "modules_to_save", "lora_bias", "rank_pattern", "alpha_pattern", "use_rslora")


class FineTunedName(msgspec.Struct, frozen=True):
    """The public name of a fine-tuned model, `ft:<base>:<organization>:<suffix>:<id>`; `organization` is a slug."""

    base: str
    organization: str
    suffix: str
    id: AdapterId

    def __str__(self) -> str:
        return f"ft:{self.base}:{self.organization}:{self.suffix}:{self.id}"


def parse_fine_tuned(name: str) -> FineTunedName | None:
    parts = name.split(":")
    if len(parts) != 5 or parts[0] != "ft":
        return None
    return FineTunedName(parts[1], parts[2], parts[3], AdapterId(parts[4]))


def valid_suffix(suffix: str) -> bool:
    """Tell whether `suffix` may stand in a model's name: 1 to 64 of a-z, 0-9 and `-`."""
    return _SUFFIX.fullmatch(suffix) is not None


class AdapterRef(msgspec.Struct, frozen=True):
    """Where a replica finds an adapter: `<blob root>/<path>`, and the hash its manifest must show."""

    id: AdapterId
    name: str
    path: str
    digest: str

    @property
    def well_formed(self) -> bool:
        """Whether `path` stays under the blob root and `digest` is a SHA-256."""
        return _PATH.fullmatch(self.path) is not None and _DIGEST.fullmatch(self.digest) is not None


class AdapterNotAllowed(ValueError):
    """An adapter breaks a rule. `code` is stable, `message` is for its tenant."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class AdapterRules(msgspec.Struct, frozen=True):
    max_rank: int
    target_modules: tuple[str, ...] = LINEAR_LAYERS

    def check(self, config: Mapping[str, object]) -> int:
        """Check PEFT's `adapter_config.json`; return the rank.

        Raises:
            AdapterNotAllowed: not a LoRA adapter, or one of a kind, rank or layers that are not served.
        """
        rank, modules = config.get("r"), config.get("target_modules")
        if config.get("peft_type") != "LORA":
            raise AdapterNotAllowed("adapter_unsupported", "It is not a LoRA adapter.")
        if not isinstance(rank, int) or not 0 < rank <= self.max_rank:
            raise AdapterNotAllowed("rank_not_allowed", f"The rank must be 1 to {self.max_rank}, not {rank}.")
        if not isinstance(modules, list) or not modules or not set(map(str, modules)) <= set(self.target_modules):
            allowed = ", ".join(self.target_modules)
            raise AdapterNotAllowed("module_not_allowed", f"Only these layers may be changed: {allowed}.")
        used = [name for name in _UNSUPPORTED if config.get(name)]
        if used or config.get("bias", "none") != "none":
            message = f"Not supported in an adapter: {', '.join(used) or 'bias'}."
            raise AdapterNotAllowed("adapter_unsupported", message)
        return rank
