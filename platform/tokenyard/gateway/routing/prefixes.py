"""Which replicas were sent a prompt that began alike: a chain of hashes over the first bytes of what they are sent.

Every chain begins with the organization's cache salt and the model's name, as the keys of the replicas' own caches do:
what one organization sends says nothing about another's.
"""

from collections.abc import Sequence
from hashlib import blake2b

from tokenyard.gateway.routing.recent import Recent

BLOCK = 256
MAX_BYTES = 32 * 1024
BYTES_PER_TOKEN = 4
"""As a rule, of English text."""
MAX_PREFIXES = 64 * 1024
"""About 100 bytes each."""
MAX_HOLDERS = 4
_PROMPTS = (b'"messages":', b'"prompt":')


def _ends() -> tuple[int, ...]:
    """Return where blocks end: each is a quarter of what comes before it, so that long prompts have few of them."""
    ends = [BLOCK]
    while ends[-1] < MAX_BYTES:
        ends.append(ends[-1] + max(BLOCK, ends[-1] // 4))
    return tuple(ends)


ENDS = _ends()


def prompt_start(body: bytes) -> int | None:
    """Return where the prompt begins in a body, or None where there is none that a replica would keep."""
    for name in _PROMPTS:
        # In a text the quotes would be escaped.
        at = body.find(name)
        if at >= 0:
            return at
    return None


def model_key(salt: str, model: str) -> int:
    """Return the key that all of an organization's requests to a model have in common."""
    return hash((salt, model))


def prefix_keys(body: bytes, key: int) -> list[int]:
    """Return a key for each whole block of the prompt with all that comes before it, which begins with `key`."""
    start = prompt_start(body)
    if start is None:
        return []
    size, begin, keys = len(body) - start, 0, []
    for end in ENDS:
        if end > size:
            break
        key = hash((key, body[start + begin : start + end]))
        keys.append(key)
        begin = end
    return keys


def tokens_of(blocks: int) -> int:
    """Return about how many tokens the first `blocks` blocks of a prompt are."""
    return ENDS[blocks - 1] // BYTES_PER_TOKEN if blocks else 0


def common_key(body: bytes, salt: str, model: str, *, of_model: bool, hint: str = "") -> int | None:
    """Return a key that all gateways make alike: of the model alone, or with the client's hint where it gave one, or
    with the first block, if there is a whole one.
    """
    first = hint.encode()
    if not of_model and not hint:
        start = prompt_start(body)
        if start is None or len(body) - start < BLOCK:
            return None
        first = body[start : start + BLOCK]
    return int.from_bytes(blake2b(model.encode() + b"\0" + first, key=salt.encode()[:64], digest_size=8).digest())


class PrefixIndex:
    """Which replicas were sent what, the last one first; what they have dropped since is not known here."""

    def __init__(self, size: int = MAX_PREFIXES) -> None:
        self._holders: Recent[int, tuple[str, ...]] = Recent(size)

    def __len__(self) -> int:
        return len(self._holders)

    def matched(self, keys: Sequence[int]) -> dict[str, int]:
        """Return how many of the first `keys` each replica was sent, of those that were sent any."""
        found: dict[str, int] = {}
        for number, key in enumerate(keys, 1):
            holders = self._holders.get(key)
            if holders is None:
                break
            for name in holders:
                found[name] = number
        return found

    def note(self, keys: Sequence[int], name: str) -> None:
        """Note that replica `name` is sent all of `keys`."""
        for key in keys:
            holders = self._holders.get(key)
            if holders is None:
                self._holders.put(key, (name,))
            elif holders[0] != name:
                self._holders.put(key, (name, *(one for one in holders if one != name))[:MAX_HOLDERS])
