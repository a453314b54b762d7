"""The public name of a fine-tuned model: `ft:<base>:<organization>:<suffix>:<id>`."""

import re

import msgspec

from tokenyard.core.ids import AdapterId

_SUFFIX = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class FineTunedName(msgspec.Struct, frozen=True):
    """The parts of a fine-tuned model's name. `organization` is the organization's slug."""

    base: str
    organization: str
    suffix: str
    id: AdapterId

    def __str__(self) -> str:
        return f"ft:{self.base}:{self.organization}:{self.suffix}:{self.id}"


def parse_fine_tuned(name: str) -> FineTunedName | None:
    """Return the parts of `name`, or None where it is not the name of a fine-tuned model."""
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
